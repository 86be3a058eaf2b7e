// Device code of mla_decode.cu: the shared memory of the attend kernel, and the warp that fills it.
#pragma once

#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/tensor_load.cuh"
#include "backend/cuda/latent_codes.cuh"
#include "backend/cuda/mla_decode_params.cuh"

namespace nanocp::cuda {
namespace {

// The part of a stretch that lies in one row.
struct Segment {
  int32_t row;
  int32_t tile;   // first
  int32_t count;  // tiles
  int32_t left;   // tiles of the stretch from `tile` on
  RowSpan span;
  AttentionRow info;

  __device__ void start(const Stretch& stretch) {
    row = stretch.row;
    tile = stretch.tile;
    left = stretch.count;
    span = stretch.span;
    info = stretch.info;
    count = min(left, span.num_tiles - tile);
  }
  __device__ void next(const Params& params) {
    left -= count;
    if (left <= 0) return;
    tile = 0;
    do {
      span = params.workspace.spans[++row];
    } while (span.num_tiles == 0);
    info = params.args.rows[row];
    count = min(left, span.num_tiles);
  }
};

// What a warp that spreads out codes knows of the tile to ask for next.
struct CodeState {
  Segment segment;
  int32_t tile;         // in its row
  int32_t open_source;  // the instance waited for last, or -1
  int32_t num_queries;  // segments whose queries have been asked for
  CodeBlocks blocks;
};

// The barriers of a stage or the queries count warps that have left, or bytes that have arrived.
struct Shared {
  static constexpr int kColumns = kHeads;  // heads that there is place for
  static constexpr uint32_t kQueryChunkBytes = kChunkBytes;

  alignas(1024) uint8_t q[kTileBytes];
  // The weights of a tile take the place of its rotary keys once the scores are done.
  alignas(1024) uint8_t tiles[kStages][kTileBytes];
  float maxima[kStages][kHeads];  // base 2, of the rows up to and including the stage's tile
  float sums[2][2][kHeads];       // of weights, by segment's parity and warpgroup
  uint64_t full[kStages][kChunks];
  uint64_t empty[kStages][3];  // first half of the values, second half, rotary keys and weights
  uint64_t q_full;
  uint64_t q_empty;
  uint64_t parts_written;  // counts threads that compute: all of the lane's results and parts
  SharedRow rows[2];       // as in the workspace
  float part_weights[kHeads + 2 * kLanesMax];  // of a share's heads, each of all parts
  CodeShared codes;
  CodeState code_states[kCodeWarps];
};

// `arrivals`: of those who fill a chunk.
__device__ inline void init_barriers(Shared& shared, uint32_t arrivals) {
  for (int stage = 0; stage < kStages; ++stage) {
    for (auto& barrier : shared.full[stage]) init_barrier(shared_address(&barrier), arrivals);
    for (int part = 0; part < 3; ++part) {
      init_barrier(shared_address(&shared.empty[stage][part]), part < 2 ? 4 : 8);
    }
  }
  init_barrier(shared_address(&shared.q_full), 1);
  init_barrier(shared_address(&shared.q_empty), 8);
  init_barrier(shared_address(&shared.parts_written), kComputeThreads);
  init_code_barriers(shared.codes);
  for (CodeState& state : shared.code_states) {
    state.open_source = -1;
    state.num_queries = 0;
  }
  publish_barriers();
}

// What a lane copies of a tile.
struct Box {
  int32_t block;  // -1: there is none
  int32_t token;  // in the block
};

__device__ inline Box look_up_box(const Params& params, const AttentionRow& row, int32_t tile,
                                  int32_t lane) {
  const int32_t token = tile * kTileTokens + lane * params.box_tokens;
  const int32_t at = token / params.args.config.block_size;
  Box box = {-1, token % params.args.config.block_size};
  if (lane * params.box_tokens < kTileTokens && at < row.num_blocks)
    box.block = params.args.blocks[row.block_begin + at];
  return box;
}

// The warp that asks for tiles and queries. A tile is copied in boxes of tokens of one block, a
// lane for each; places without a block arrive as zeros.
template <bool kHoldsBack>
struct Producer {
  const Params& params;
  Shared& shared;
  uint64_t policy;
  int32_t group;  // of heads
  int32_t lane;
  int32_t num_boxes;  // of a chunk

  __device__ void load_chunk(int stage, int chunk, const Box& box) const {
    const uint32_t barrier = shared_address(&shared.full[stage][chunk]);
    if (lane == 0) arrive_expecting(barrier, kChunkBytes);
    __syncwarp();
    if (lane < num_boxes) {
      const uint32_t to = shared_address(shared.tiles[stage]) + chunk * kChunkBytes +
                          static_cast<uint32_t>(lane * params.box_tokens) * 128;
      load_box(to, params.cache_map, chunk * 64, box.token, box.block, barrier, policy);
    }
  }

  // Until the chunk has landed that lies kChunksAhead before this one: more under way lets some
  // multiprocessors run away from the others. Not where blocks go through the same tiles together.
  __device__ void hold_back(int32_t number, int chunk) const {
    if constexpr (kHoldsBack) {
      const int32_t at = number * kChunks + chunk - kChunksAhead;
      if (at < 0) return;
      const int32_t before = at / kChunks;
      wait_phase(shared_address(&shared.full[before % kStages][at % kChunks]),
                 (before / kStages) & 1);
    }
  }

  __device__ void load_tile(int32_t number, const Box& box) const {
    const int stage = number % kStages;
    const uint32_t parity = (number / kStages + 1) & 1;
    for (int half = 0; half < 2; ++half) {
      wait_phase(shared_address(&shared.empty[stage][half]), parity);
      for (int c = 0; c < kHalfChunks; ++c) {
        hold_back(number, half * kHalfChunks + c);
        load_chunk(stage, half * kHalfChunks + c, box);
      }
    }
    wait_phase(shared_address(&shared.empty[stage][2]), parity);
    hold_back(number, kRotaryChunk);
    load_chunk(stage, kRotaryChunk, box);
  }

  __device__ void load_queries(int32_t segment, int32_t row) const {
    wait_phase(shared_address(&shared.q_empty), (segment + 1) & 1);
    if (lane != 0) return;
    const uint32_t barrier = shared_address(&shared.q_full);
    arrive_expecting(barrier, kTileBytes);
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      load_box(shared_address(shared.q) + chunk * kChunkBytes, params.q_map, chunk * 64,
               group * kHeads, row, barrier, evict_normal_policy());
    }
  }
};

// The whole warp: a stretch's tiles, of which the first is at `first`, and its queries but the
// first.
template <typename ProducerT>
__device__ void ask_for_tiles(const ProducerT& producer, const Stretch& stretch, const Box& first) {
  const Params& params = producer.params;
  Segment segment;
  segment.start(stretch);
  int32_t number = 0;  // of the tile
  int32_t open_source = -1;
  for (int32_t s = 0; segment.left > 0; ++s, segment.next(params)) {
    const AttentionRow& row = segment.info;
    if (is_remote(params, row) && row.source != open_source) {
      if (producer.lane == 0) wait_for_source(params, row.source);
      __syncwarp();
      publish_to_copies();
      open_source = row.source;
    }
    Box box = s == 0 ? first : look_up_box(params, row, segment.tile, producer.lane);
    for (int32_t k = 0; k < segment.count; ++k) {
      const Box next = look_up_box(params, row, segment.tile + k + 1, producer.lane);
      producer.load_tile(number++, box);
      if (k == 0 && s > 0) producer.load_queries(s, row.row);
      box = next;
    }
  }
}

// The first queries, by the three warps of the last warpgroup that ask for no tiles. `thread`: of
// these. Where many blocks ask for the same row the second-level cache serves them slowly; the
// copies of tiles, which wait for one another in the order they are asked for, need not stand
// behind that.
template <typename SharedT>
__device__ inline void load_first_queries(const Params& params, SharedT& shared,
                                          const AttentionRow& row, int32_t group, int32_t thread) {
  if (is_remote(params, row)) {
    if (thread % 32 == 0) wait_for_source(params, row.source);
    __syncwarp();
  }
  const int32_t num_heads = params.args.config.num_heads;
  const auto* from = static_cast<const uint8_t*>(params.args.q) +
                     (static_cast<int64_t>(row.row) * num_heads + group * kHeads) * kRowBytes;
  const int32_t heads = min(kHeads, num_heads - group * kHeads);
  constexpr int32_t kPieces = kRowBytes / 16;
#pragma unroll 4
  for (int32_t i = thread; i < SharedT::kColumns * kPieces; i += kIdleThreads) {
    const int32_t head = i / kPieces;
    const int32_t piece = i % kPieces;
    const uint32_t to = shared_address(shared.q) +
                        static_cast<uint32_t>(piece / 8) * SharedT::kQueryChunkBytes +
                        swizzled_offset(head, piece % 8);
    copy_16_async(to, head < heads ? from + i * 16 : from, head < heads);
  }
  commit_copies();
  wait_copies<0>();
  publish_shared();
  sync_threads(kQueriesBarrier, kIdleThreads);
  if (thread == 0) arrive(shared_address(&shared.q_full));
}

}  // namespace
}  // namespace nanocp::cuda
