// Device code of mla_decode.cu: the attend kernel for up to 32 heads where the cache holds bf16,
// sm_90a.
#pragma once

#include "backend/cuda/mla_few_join.cuh"
#include "backend/cuda/mla_few_products.cuh"

namespace nanocp::cuda {
namespace {

// Parts under way at a time; measured. More lets some multiprocessors run away from the others.
constexpr int kPartsAhead = 3;
constexpr int kFewThreads = 2 * kGroupThreads;  // one warpgroup computes, one asks for tiles

// `kN`, here and below: the number of heads, padded to 16 or 32.
template <int kN>
struct FewShared {
  static constexpr int kColumns = kN;
  static constexpr uint32_t kQueryChunkBytes = kN * 128;
  static constexpr uint32_t kQueryBytes = kChunks * kQueryChunkBytes;
  static constexpr uint32_t kOtherBytes = 4096 + kN * 4 * 12;  // at most
  static constexpr int kSlots =
      (kSharedBytesMax - kQueryBytes - kQueryChunkBytes - kOtherBytes) / kPartBytes;

  alignas(1024) uint8_t q[kQueryBytes];
  alignas(1024) uint8_t ring[kSlots][kPartBytes];
  alignas(1024) uint8_t weights[kQueryChunkBytes];
  float tile_maxima[4][kN];
  float sums[2][4][kN];
  uint64_t full[kSlots];
  uint64_t empty[kSlots];
  uint64_t q_full;
  uint64_t q_empty;
  SharedRow rows[2];
  int32_t all_there[2];  // what the rows' counters say when all parts are there
};

static_assert(sizeof(FewShared<16>) <= kSharedBytesMax);
static_assert(sizeof(FewShared<kFewHeadsMax>) <= kSharedBytesMax);

template <typename SharedT>
__device__ void init_few_barriers(SharedT& shared) {
  for (int i = 0; i < SharedT::kSlots; ++i) {
    init_barrier(shared_address(&shared.full[i]), 1);
    init_barrier(shared_address(&shared.empty[i]), 4);
  }
  init_barrier(shared_address(&shared.q_full), 1);
  init_barrier(shared_address(&shared.q_empty), 4);
  publish_barriers();
}

template <int kN>
struct FewComputer : FewProducts<FewShared<kN>> {
  using Base = FewProducts<FewShared<kN>>;
  using Base::attend, Base::head, Base::kOwn, Base::kRegs, Base::total, Base::write_result;
  using Base::max, Base::out, Base::params, Base::shared, Base::sum, Base::thread;

  // As vectors of two heads and two columns, which the threads have.
  __device__ void write_part_values(int32_t lane, bool begins_here) const {
    const int32_t slot = partial_slot(params, lane, begins_here, 0);
    auto* to = reinterpret_cast<float4*>(params.workspace.partial_out) +
               static_cast<int64_t>(slot) * (kN * kLatentDim / 4) + thread;
#pragma unroll
    for (int j = 0; j < kRegs / 4; ++j) {
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        const float* from = out[c] + j * 4;
        to[(j * kValueChunks + c) * kGroupThreads] = {from[0], from[1], from[2], from[3]};
      }
    }
  }
  __device__ void write_part_stats(int32_t lane, bool begins_here) const {
    if (thread >= 4) return;
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      *part_stats<kN>(params, lane, begins_here, head(o)) = {max[o], sum[o]};
    }
  }

  __device__ void run(const Stretch& stretch, int32_t lane) {
    Segment segment;
    segment.start(stretch);
    int32_t number = 0;
    for (int32_t s = 0; segment.left > 0; ++s, segment.next(params)) {
      const int32_t last = segment.tile + segment.count - 1;
      attend(number, number + segment.count,
             min(kTileTokens, segment.span.token_end - last * kTileTokens), s, [] {});
      const bool begins_here = segment.tile == 0;
      if (begins_here && segment.count == segment.span.num_tiles) {
        total(s & 1);
        write_result(segment.info.row);
      } else {
        write_part_values(lane, begins_here);
        total(s & 1);  // while the values are on their way
        write_part_stats(lane, begins_here);
      }
      number += segment.count;
    }
  }
};

// The warp that asks for tiles and queries.
template <typename SharedT>
struct FewProducer : FewRequests<SharedT> {
  using Base = FewRequests<SharedT>;
  using Base::lane, Base::num_boxes, Base::params, Base::policy, Base::shared;

  // Into the second-level cache, which sees what is written to it later.
  __device__ void prefetch(const Box& box) const {
    if (box.block < 0) return;
    const auto* from = static_cast<const uint8_t*>(params.args.cache) +
                       (box.block * params.args.block_stride + box.token * kLatentKeyDim) * 2;
    prefetch_bulk(from, static_cast<uint32_t>(params.box_tokens * kRowBytes));
  }

  __device__ void load_tile(int32_t number, const Box& box) const {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int32_t at = number * kParts + p;
      const int32_t slot = at % SharedT::kSlots;
      const uint32_t full = shared_address(&shared.full[slot]);
      wait_phase(shared_address(&shared.empty[slot]), (at / SharedT::kSlots + 1) & 1);
      if (const int32_t before = at - kPartsAhead; before >= 0) {
        wait_phase(shared_address(&shared.full[before % SharedT::kSlots]),
                   (before / SharedT::kSlots) & 1);
      }
      if (lane == 0) arrive_expecting(full, kPartBytes);
      __syncwarp();
      if (lane >= num_boxes) continue;
      const uint32_t base = shared_address(shared.ring[slot]);
      const int32_t first = lane * params.box_tokens / 8;  // groups of eight tokens
      load_box_5(base + first * kEightTokens, params.cache_map,
                 {0, 0, p * kPartChunks, box.token / 8, box.block}, full, policy);
    }
  }
};

// The warpgroup that asks for what the other one needs. `first_block`: of the thread's box of the
// first tile. The schedule and the tables have stood since the step began; all else waits.
template <typename SharedT>
__device__ void produce_few(const Params& params, SharedT& shared, const Stretch& stretch,
                            int32_t first_block, int32_t thread) {
  if (thread < 32) {
    ask_few<FewProducer<SharedT>>(params, shared, stretch, first_block, thread);
  } else {
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    if (thread >= kGroupThreads - 2) expect_parts(params, shared, thread % 2);
    if (stretch.count > 0) load_first_queries(params, shared, stretch.info, 0, thread - 32);
    write_neutral_rows(params, thread - 32, kIdleThreads);
  }
}

template <int kN>
__global__ void __launch_bounds__(kFewThreads, 1)
    attend_few_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t raw[];
  auto& shared = *reinterpret_cast<FewShared<kN>*>(raw);
  const auto lane = static_cast<int32_t>(blockIdx.x);
  const Stretch stretch = params.workspace.stretches[lane];
  // Not behind a look at the stretch.
  const int32_t first_block =
      params.workspace.stretches[lane].first_blocks[threadIdx.x % kTileBoxes];
  if (threadIdx.x == 0) init_few_barriers(shared);
  if (threadIdx.x == kGroupThreads) {
    prefetch_tensor_map(params.q_map);
    prefetch_tensor_map(params.cache_map);
  }
  const int32_t warpgroup =
      __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x) / kGroupThreads, 0);
  const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
  if (threadIdx.x >= kFewThreads - 2) read_shared_row(params, shared, lane, thread % 2);
  __syncthreads();
  if (warpgroup == 1) {
    produce_few(params, shared, stretch, first_block, thread);
  } else {
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    if (stretch.count > 0) {
      FewComputer<kN>{{.params = params, .shared = shared, .thread = thread}}.run(stretch, lane);
    }
  }
  if (stretch.count == 0) return;
  __syncthreads();
  join_few_rows<kN>(params, shared, lane, static_cast<int32_t>(threadIdx.x));
}

}  // namespace
}  // namespace nanocp::cuda
