// Device code of mla_prefill.cu: the shared memory of the attend kernel, and the warp that fills
// it.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/tensor_load.cuh"
#include "backend/cuda/device/warpgroup_mma.cuh"
#include "backend/cuda/latent_codes.cuh"
#include "backend/cuda/mla_prefill_plan.cuh"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kGroupThreads = 128;
constexpr int kGroupWarps = 4;
constexpr int kProducerWarp = 2 * kGroupWarps;
constexpr int kThreads = 3 * kGroupThreads;
constexpr int kScorerRegisters = 240;  // of a thread
constexpr int kAdderRegisters = 200;
constexpr int kProducerRegisters = 56;  // of those that only ask
// The same where the warps that fetch tiles spread codes out.
constexpr int kAdderRegistersBesideSpreaders = 176;
constexpr int kSpreaderRegisters = 88;
constexpr int kStages = 2;
constexpr int kChunks = kLatentKeyDim / 64;    // of 64 values: a row of 128 bytes
constexpr int kLeftChunks = kLatentDim / 128;  // that warpgroup 0 adds up
constexpr int kHalfDims = kLatentDim / 2;      // columns of a warpgroup
constexpr int kChunkRowBytes = 128;
constexpr int kChunkBytes = kTileTokens * kChunkRowBytes;
constexpr int kRunTokens = 16;  // never straddle blocks
constexpr int kRuns = kTileTokens / kRunTokens;
constexpr int32_t kNoPosition = 1 << 30;  // after all rows

// What a warp that spreads out codes knows of the tile to ask for next.
struct CodeState {
  SegmentWalk walk;
  PrefillItem item;
  int32_t tile;         // of the unit
  int32_t open_source;  // the instance waited for last, or -1
  int32_t num_queries;  // segments whose queries have been asked for
  CodeBlocks blocks;
};

struct Shared {
  alignas(1024) uint8_t q[kChunks * kChunkBytes];
  alignas(1024) uint8_t kv[kStages][kChunks * kChunkBytes];
  alignas(1024) uint8_t weights[kChunkBytes];  // [queries, tokens] of one tile
  float rescale[kTileQueries];                 // of what has been added up so far
  float factors[kTileQueries];                 // of the sums at the end of a segment
  // Each half of a stage: the chunks of the first 256 values, and the others.
  uint64_t kv_full[kStages][2];
  uint64_t kv_free[kStages][2];
  uint64_t q_full;
  uint64_t q_free;
  uint64_t weights_full;  // with rescale and, for a last tile, factors
  uint64_t weights_free;
  uint64_t scored;
  CodeShared codes;
  CodeState code_states[kCodeWarps];
};

// `loaders`: warps that fill a half.
__device__ inline void start_barriers(Shared& shared, uint32_t loaders) {
  constexpr uint32_t kWarps = kGroupWarps;
  for (int stage = 0; stage < kStages; ++stage) {
    for (int half = 0; half < 2; ++half) {
      init_barrier(shared_address(&shared.kv_full[stage][half]), loaders);
      init_barrier(shared_address(&shared.kv_free[stage][half]), kWarps);
    }
  }
  init_barrier(shared_address(&shared.q_full), 1);
  init_barrier(shared_address(&shared.q_free), kWarps);
  init_barrier(shared_address(&shared.weights_full), kGroupThreads);
  init_barrier(shared_address(&shared.weights_free), kWarps);
  init_barrier(shared_address(&shared.scored), kWarps);
  init_code_barriers(shared.codes);
  for (CodeState& state : shared.code_states) {
    state.open_source = -1;
    state.num_queries = 0;
  }
  publish_barriers();
}

// 16 tokens of one block.
struct Run {
  int32_t block;
  int32_t in_block;  // the first token
};

__device__ inline Run find_run(const MlaPrefillArgs& args, const PrefillItem& item, int32_t token) {
  const int32_t at = token / args.config.block_size;
  const int32_t entry = item.block_begin + min(at, item.num_blocks - 1);
  return {args.blocks[entry], token % args.config.block_size};
}

// One warp: what another instance sends has arrived, for its copies too. After a wait that failed
// the step computes on stale data and is thrown away by the host.
__device__ inline void wait_for_source(const MlaPrefillArgs& args, int32_t source,
                                       int32_t* open_source) {
  const ExchangeView& exchange = args.exchange;
  if (exchange.num_instances <= 1 || source < 0 || source == exchange.self) return;
  if (source == *open_source) return;
  if (threadIdx.x % 32 == 0) {
    wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kQuery, source), number_of(args.epoch),
                  exchange.wait, WaitPurpose::kQuery, source);
  }
  __syncwarp();
  publish_to_copies();
  *open_source = source;
}

// One warp: asks for the queries of a unit, whose place is free.
__device__ inline void ask_queries(const Params& params, const PrefillItem& item, const Unit& unit,
                                   Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t q_full = shared_address(&shared.q_full);
  if (lane == 0) arrive_expecting(q_full, kChunks * kChunkBytes);
  __syncwarp();
  if (lane >= kChunks) return;
  const int32_t pair = item.row_begin * params.args.config.num_heads + unit.first;
  load_box(shared_address(shared.q) + static_cast<uint32_t>(lane * kChunkBytes), params.queries,
           lane * 64, pair, 0, q_full, evict_first_policy());
}

// One warp: asks for queries and tokens of the block's segments as room becomes free.
__device__ inline void load_tiles(const Params& params, SegmentWalk walk, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t boxes = kTileTokens / params.box_tokens;  // of a chunk
  const uint32_t box_bytes = static_cast<uint32_t>(params.box_tokens) * kChunkRowBytes;
  const uint64_t often = evict_normal_policy();
  int32_t open_source = -1;
  uint32_t n = 0;
  for (uint32_t segment = 0; walk.left > 0; ++segment, walk.next(params)) {
    const PrefillItem item = params.args.items[walk.unit.item];
    wait_for_source(params.args, item.source, &open_source);
    if (segment > 0) wait_phase(shared_address(&shared.q_free), (segment - 1) & 1);
    ask_queries(params, item, walk.unit, shared);
    for (int32_t tile = walk.tile; tile < walk.tile + walk.count(); ++tile, ++n) {
      const uint32_t stage = n % kStages;
      const uint32_t to = shared_address(shared.kv[stage]);
      Run run = {0, 0};
      if (lane < kRuns) {
        run = find_run(params.args, item, tile * kTileTokens + lane * kRunTokens);
      }
      for (int half = 0; half < 2; ++half) {
        const uint32_t full = shared_address(&shared.kv_full[stage][half]);
        const int begin = half == 0 ? 0 : kLeftChunks;
        const int end = half == 0 ? kLeftChunks : kChunks;
        if (n >= kStages) {
          wait_phase(shared_address(&shared.kv_free[stage][half]), (n / kStages - 1) & 1);
        }
        if (lane == 0) arrive_expecting(full, static_cast<uint32_t>((end - begin) * kChunkBytes));
        __syncwarp();
        const int count = (end - begin) * boxes;
        for (int first = 0; first < count; first += 32) {
          const int i = first + lane;
          const int box = i % boxes;
          const int chunk = begin + i / boxes;
          const int source = box * params.box_tokens / kRunTokens;
          const int32_t block = __shfl_sync(0xffffffffU, run.block, source);
          const int32_t in_block = __shfl_sync(0xffffffffU, run.in_block, source);
          if (i >= count) continue;
          const uint32_t at = to + static_cast<uint32_t>(chunk * kChunkBytes) +
                              static_cast<uint32_t>(box) * box_bytes;
          load_box(at, params.tokens, chunk * 64, in_block, block, full, often);
        }
        __syncwarp();
      }
    }
  }
}

}  // namespace
}  // namespace nanocp::cuda
