// A counting sort in one block: counts by shared-memory atomics, a prefix sum, then every warp
// places the rows of its experts by ballots over all choices in order, which keeps the order.
#include "backend/cuda/expert_plan.h"

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/flag_wait.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kPlanThreads = 1024;
constexpr int kPlanWarps = kPlanThreads / 32;
constexpr int kExpertsMax = 1024;
constexpr int kExpertsAtOnce = 4;  // of one warp in one pass over the choices
constexpr uint32_t kAllLanes = 0xffffffffU;

struct PlanShared {
  int32_t count[kExpertsMax];
  int32_t begin[kExpertsMax];  // of assignments
  int32_t tile[kExpertsMax];   // of tiles
};

__device__ const int32_t* topk_of(const ExchangeView& exchange, int32_t source) {
  return reinterpret_cast<const int32_t*>(exchange.base[exchange.self] +
                                          exchange.offsets.topk_idx) +
         static_cast<int64_t>(source) * exchange.max_rows * exchange.topk;
}

__device__ int32_t num_choices(const ExchangeView& exchange, int32_t source) {
  const auto* counts = reinterpret_cast<const int32_t*>(exchange.base[exchange.self] +
                                                        exchange.offsets.dispatch_count);
  const int32_t rows = min(max(__ldcg(counts + source), 0), exchange.max_rows);
  return rows * exchange.topk;
}

__device__ void wait_for_rows(const ExpertPlanArgs& args) {
  const ExchangeView& exchange = args.exchange;
  const uint64_t epoch = (*args.epoch.step - 1) * static_cast<uint64_t>(args.epoch.per_step) +
                         static_cast<uint64_t>(args.epoch.index) + 1;
  const auto* flags =
      reinterpret_cast<const uint64_t*>(exchange.base[exchange.self] + exchange.offsets.flags) +
      static_cast<int>(FlagKind::kDispatch) * exchange.num_instances;
  for (int32_t source = static_cast<int32_t>(threadIdx.x); source < exchange.num_instances;
       source += kPlanThreads) {
    if (source == exchange.self) continue;
    device::wait_for_flag(flags + source, epoch, exchange.wait, WaitPurpose::kDispatch, source);
  }
  __syncthreads();
}

__device__ void count_choices(const ExpertPlanArgs& args, PlanShared& shared) {
  for (int e = static_cast<int>(threadIdx.x); e < args.num_experts; e += kPlanThreads) {
    shared.count[e] = 0;
  }
  __syncthreads();
  const ExchangeView& exchange = args.exchange;
  for (int32_t source = 0; source < exchange.num_instances; ++source) {
    const int32_t* topk = topk_of(exchange, source);
    int32_t* assignment_of =
        args.lists.assignment_of + static_cast<int64_t>(source) * exchange.max_rows * exchange.topk;
    const int32_t total = num_choices(exchange, source);
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < total; i += kPlanThreads) {
      const int32_t expert = __ldcg(topk + i) - args.expert_begin;
      if (expert >= 0 && expert < args.num_experts) {
        atomicAdd(&shared.count[expert], 1);
      } else {
        assignment_of[i] = -1;
      }
    }
  }
  __syncthreads();
}

// Inclusive sums over the threads of the block; `sums` has a place per warp.
__device__ int32_t scan_block(int32_t value, int32_t* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int32_t before = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += before;
  }
  if (lane == 31) sums[warp] = value;
  __syncthreads();
  if (warp == 0) {
    int32_t sum = sums[lane];
    for (int distance = 1; distance < 32; distance *= 2) {
      const int32_t before = __shfl_up_sync(kAllLanes, sum, distance);
      if (lane >= distance) sum += before;
    }
    sums[lane] = sum;
  }
  __syncthreads();
  if (warp > 0) value += sums[warp - 1];
  __syncthreads();
  return value;
}

__device__ void place_tiles(const ExpertPlanArgs& args, PlanShared& shared) {
  __shared__ int32_t sums[kPlanWarps];
  const auto e = static_cast<int32_t>(threadIdx.x);
  const int32_t count = e < args.num_experts ? shared.count[e] : 0;
  const int32_t num_tiles = (count + args.tile_rows - 1) / args.tile_rows;
  const int32_t end = scan_block(count, sums);
  const int32_t tile_end = scan_block(num_tiles, sums);
  if (e < args.num_experts) {
    shared.begin[e] = end - count;
    for (int32_t i = 0; i < num_tiles; ++i) {
      const int32_t begin = i * args.tile_rows;
      args.lists.tiles[tile_end - num_tiles + i] = {e, end - count + begin,
                                                    min(args.tile_rows, count - begin), 0};
    }
  }
  if (threadIdx.x == kPlanThreads - 1) *args.lists.num_tiles = tile_end;
  __syncthreads();
}

// This warp's experts first, first + stride, ...
__device__ void place_rows(const ExpertPlanArgs& args, const PlanShared& shared, int32_t first) {
  const ExchangeView& exchange = args.exchange;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int32_t next[kExpertsAtOnce];
  for (int j = 0; j < kExpertsAtOnce; ++j) {
    const int32_t expert = first + j * kPlanWarps;
    next[j] = expert < args.num_experts ? shared.begin[expert] : 0;
  }
  for (int32_t source = 0; source < exchange.num_instances; ++source) {
    const int32_t* topk = topk_of(exchange, source);
    const int64_t first_row = static_cast<int64_t>(source) * exchange.max_rows;
    const int32_t total = num_choices(exchange, source);
    for (int32_t base = 0; base < total; base += 32) {
      const int32_t i = base + lane;
      const int32_t expert = i < total ? __ldcg(topk + i) - args.expert_begin : -1;
#pragma unroll
      for (int j = 0; j < kExpertsAtOnce; ++j) {
        const int32_t wanted = first + j * kPlanWarps;
        const bool mine = expert == wanted && wanted < args.num_experts;
        const uint32_t takers = __ballot_sync(kAllLanes, mine);
        if (mine) {
          const int32_t at = next[j] + __popc(takers & ((1U << lane) - 1U));
          args.lists.row_of[at] = static_cast<int32_t>(first_row) + i / exchange.topk;
          args.lists.assignment_of[first_row * exchange.topk + i] = at;
        }
        next[j] += __popc(takers);
      }
    }
  }
}

__global__ void __launch_bounds__(kPlanThreads)
    plan_kernel(const __grid_constant__ ExpertPlanArgs args) {
  __shared__ PlanShared shared;
  wait_for_rows(args);
  count_choices(args, shared);
  place_tiles(args, shared);
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
  for (int32_t first = warp; first < args.num_experts; first += kPlanWarps * kExpertsAtOnce) {
    place_rows(args, shared, first);
  }
}

}  // namespace

ExpertPlanSizes expert_plan_sizes(const ExchangeView& exchange, int32_t num_experts,
                                  int32_t tile_rows) {
  const int64_t most =
      static_cast<int64_t>(exchange.num_instances) * exchange.max_rows * exchange.topk;
  return {most, most / tile_rows + num_experts};
}

Status launch_expert_plan(const ExpertPlanArgs& args, cudaStream_t stream) {
  if (args.num_experts < 0 || args.num_experts > kExpertsMax || args.tile_rows < 1) {
    return unsupported("an instance may own up to " + std::to_string(kExpertsMax) +
                       " experts of a layer, not " + std::to_string(args.num_experts));
  }
  plan_kernel<<<1, kPlanThreads, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "launch of the expert plan");
}

}  // namespace nanocp::cuda
