// Router and dispatch in one kernel, a block per row: one warp chooses the experts and posts them,
// which needs no flag since each choice carries its epoch. Few rows go to all instances at once,
// beside the choice; many go where they are needed, behind their choices, so that those who plan
// need not wait for all rows. The last block to finish raises the flags of the rows.
#include <algorithm>

#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kGateThreads = 256;
constexpr int kExpertsMax = 512;
constexpr int kTopkMax = 32;
constexpr int kGroupsMax = 32;
constexpr int kRowsToAll = 16;
constexpr int kChunksAtOnce = 4;  // of 16 bytes of a row, on their way in a thread
constexpr uint32_t kAllLanes = 0xffffffffU;
constexpr float kDropped = -INFINITY;

struct GateShared {
  uint8_t* base[kGateThreads];
  float choice[kExpertsMax];
  int32_t idx[kTopkMax];
  float weights[kTopkMax];
  int32_t owners[kTopkMax];  // instances that own the experts, each once, without this one
  int32_t num_owners;
};

__device__ float warp_max(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

__device__ float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// Scores of the experts lane, lane + 32, ...; `count` of them per lane.
template <int kPerLane>
struct LaneScores {
  float score[kPerLane];
  float choice[kPerLane];
};

template <int kPerLane>
__device__ void compute_scores(const GateDispatchArgs& args, int32_t row,
                               LaneScores<kPerLane>& lanes) {
  const int lane = static_cast<int>(threadIdx.x);
  const float* logits = args.logits + static_cast<int64_t>(row) * args.num_experts;
  float largest = kDropped;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + 32 * j;
    float logit = kDropped;
    if (e < args.num_experts) {
      logit = logits[e] + (args.router_bias == nullptr ? 0.0F : args.router_bias[e]);
    }
    lanes.score[j] = logit;
    largest = fmaxf(largest, logit);
  }
  const bool softmax = args.router.score == ops::RouterScore::kSoftmax;
  largest = warp_max(largest);
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const float logit = lanes.score[j];
    lanes.score[j] = softmax ? expf(logit - largest) : 1.0F / (1.0F + expf(-logit));
    sum += lanes.score[j];
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + 32 * j;
    if (softmax) lanes.score[j] /= sum;
    const float bias =
        args.correction_bias != nullptr && e < args.num_experts ? args.correction_bias[e] : 0.0F;
    lanes.choice[j] = e < args.num_experts ? lanes.score[j] + bias : kDropped;
  }
}

// Lane g scores group g; experts of groups that do not stay are dropped.
template <int kPerLane>
__device__ void drop_groups(const GateDispatchArgs& args, LaneScores<kPerLane>& lanes,
                            GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    if (lane + 32 * j < args.num_experts) shared.choice[lane + 32 * j] = lanes.choice[j];
  }
  __syncwarp();
  const int32_t num_groups = args.router.num_groups;
  const int32_t size = args.num_experts / num_groups;
  float best = kDropped;
  float second = kDropped;
  if (lane < num_groups) {
    for (int32_t i = 0; i < size; ++i) {
      const float score = shared.choice[lane * size + i];
      second = fmaxf(second, fminf(best, score));
      best = fmaxf(best, score);
    }
  }
  const bool single = args.router.group_score == ops::RouterGroupScore::kMax || size < 2;
  const float own = single ? best : best + second;
  int32_t rank = 0;
  for (int32_t g = 0; g < num_groups; ++g) {
    const float other = __shfl_sync(kAllLanes, own, g);
    if (other > own || (other == own && g < lane)) ++rank;
  }
  const uint32_t kept =
      __ballot_sync(kAllLanes, lane < num_groups && rank < args.router.topk_groups);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int32_t group = min((lane + 32 * j) / size, num_groups - 1);
    if ((kept >> group & 1U) == 0) lanes.choice[j] = kDropped;
  }
}

// The other instances that own one of the warp's experts, each once.
__device__ void list_owners(const GateDispatchArgs& args, int32_t expert, GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  const int32_t owner = expert < 0
                            ? -1
                            : static_cast<int32_t>(static_cast<int64_t>(expert) *
                                                   args.exchange.num_instances / args.num_experts);
  const uint32_t before = (1U << lane) - 1U;
  const uint32_t same = __match_any_sync(kAllLanes, owner);
  const bool first = owner >= 0 && owner != args.exchange.self && (same & before) == 0;
  const uint32_t firsts = __ballot_sync(kAllLanes, first);
  if (first) shared.owners[__popc(firsts & before)] = owner;
  if (lane == 0) shared.num_owners = __popc(firsts);
}

// Rises with the value, NaN lowest.
__device__ uint32_t ordered(float value) {
  if (isnan(value)) return 0;
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// The largest choices one after another, ties to the lower expert.
template <int kPerLane>
__device__ void pick_experts(const GateDispatchArgs& args, const LaneScores<kPerLane>& lanes,
                             GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t keys[kPerLane];  // 0: taken or not there
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    keys[j] = lane + 32 * j < args.num_experts ? max(1U, ordered(lanes.choice[j])) : 0;
  }
  for (int32_t k = 0; k < args.router.topk; ++k) {
    uint32_t best = 0;
    int32_t expert = kExpertsMax;
    float score = 0.0F;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (keys[j] > best) {
        best = keys[j];
        expert = lane + 32 * j;
        score = lanes.score[j];
      }
    }
    const uint32_t largest = __reduce_max_sync(kAllLanes, best);
    const auto winner = static_cast<int32_t>(__reduce_min_sync(
        kAllLanes, best == largest ? static_cast<uint32_t>(expert) : uint32_t{kExpertsMax}));
    if (winner == expert) {
      shared.idx[k] = expert;
      shared.weights[k] = score;
    }
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (lane + 32 * j == winner) keys[j] = 0;
    }
  }
  __syncwarp();
  const bool valid = lane < args.router.topk;
  float weight = valid ? shared.weights[lane] : 0.0F;
  const float sum = warp_sum(weight);
  float factor = args.router.scaling;
  if (args.router.renormalize) factor /= sum + 1e-20F;
  if (valid) shared.weights[lane] = weight * factor;
  list_owners(args, valid ? shared.idx[lane] : -1, shared);
}

// The first warp sends a row's choice to all instances.
__device__ void post_choices(const GateDispatchArgs& args, int32_t row, uint64_t epoch,
                             const GateShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const int32_t topk = args.router.topk;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < exchange.num_instances * topk; i += 32) {
    ExpertChoice* to = choices_of(exchange, shared.base[i / topk], epoch, exchange.self, row);
    store_whole(to + i % topk, {shared.idx[i % topk], shared.weights[i % topk], epoch});
  }
}

// One warp sends the number of rows to all instances. Whoever sees it knows that this instance has
// done with the epoch before.
__device__ void post_row_count(const ExchangeView& exchange, int32_t num_rows, uint64_t epoch,
                               const GateShared& shared) {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  for (auto to = static_cast<int32_t>(threadIdx.x) % 32; to < exchange.num_instances; to += 32) {
    store_whole(row_count_of(exchange, shared.base[to], epoch, exchange.self),
                {num_rows, 0, epoch});
  }
}

// The threads from `first` on push a row to `count` instances, the i-th being `instance(i)`.
template <typename Instance>
__device__ void push_row(const ExchangeView& exchange, int32_t row, int32_t first, int32_t count,
                         const GateShared& shared, const Instance& instance) {
  if (count == 0) return;
  const int32_t chunks = exchange.hidden / 8;
  const int32_t threads = kGateThreads - first;
  const int64_t offset =
      exchange.offsets.dispatch_x +
      (static_cast<int64_t>(exchange.self) * exchange.max_rows + row) * exchange.hidden * 2;
  const auto* x = reinterpret_cast<const uint4*>(shared.base[exchange.self] + offset);
  for (int32_t begin = static_cast<int32_t>(threadIdx.x) - first; begin < chunks;
       begin += kChunksAtOnce * threads) {
    uint4 values[kChunksAtOnce];
#pragma unroll
    for (int i = 0; i < kChunksAtOnce; ++i) {
      if (begin + i * threads < chunks) values[i] = x[begin + i * threads];
    }
    for (int32_t to = 0; to < count; ++to) {
      auto* slot = reinterpret_cast<uint4*>(shared.base[instance(to)] + offset);
#pragma unroll
      for (int i = 0; i < kChunksAtOnce; ++i) {
        if (begin + i * threads < chunks) slot[begin + i * threads] = values[i];
      }
    }
  }
}

template <int kPerLane>
__device__ void choose_and_push(const GateDispatchArgs& args, int32_t row, int32_t num_rows,
                                uint64_t epoch, GateShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const bool to_all = num_rows <= kRowsToAll;
  if (threadIdx.x < 32) {
    LaneScores<kPerLane> lanes;
    compute_scores(args, row, lanes);
    if (args.router.group_score != ops::RouterGroupScore::kNone) drop_groups(args, lanes, shared);
    pick_experts(args, lanes, shared);
    __syncwarp();
    post_choices(args, row, epoch, shared);
  } else if (to_all) {
    push_row(exchange, row, 32, exchange.num_instances - 1, shared,
             [&](int32_t i) { return i < exchange.self ? i : i + 1; });
  }
  if (to_all) return;
  __syncthreads();
  push_row(exchange, row, 0, shared.num_owners, shared,
           [&](int32_t i) { return shared.owners[i]; });
}

template <int kPerLane>
__global__ void __launch_bounds__(kGateThreads)
    gate_dispatch_kernel(const __grid_constant__ GateDispatchArgs args) {
  __shared__ GateShared shared;
  cudaTriggerProgrammaticLaunchCompletion();
  const ExchangeView& exchange = args.exchange;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t num_rows = args.step.header->num_rows;
  const uint64_t epoch = number_of(args.epoch);
  if (thread < exchange.num_instances) shared.base[thread] = exchange.base[thread];
  __syncthreads();
  cudaGridDependencySynchronize();
  if (row == 0 && thread >= kGateThreads - 32) post_row_count(exchange, num_rows, epoch, shared);
  if (row < num_rows) choose_and_push<kPerLane>(args, row, num_rows, epoch, shared);
  if (exchange.num_instances == 1) return;
  if (!is_last_to_finish(args.counter, gridDim.x)) return;
  for (int32_t to = 0; to < exchange.num_instances; ++to) {
    if (to == exchange.self) continue;
    set_flag(flag_of(exchange, to, FlagKind::kDispatch, exchange.self), epoch);
  }
}

}  // namespace

Status launch_gate_dispatch(const GateDispatchArgs& args, cudaStream_t stream) {
  const bool fits =
      args.num_experts >= 1 && args.num_experts <= kExpertsMax && args.router.topk >= 1 &&
      args.router.topk <= kTopkMax && args.router.topk <= args.num_experts &&
      args.router.num_groups >= 1 && args.router.num_groups <= kGroupsMax &&
      args.num_experts % args.router.num_groups == 0 && args.exchange.num_instances <= kGateThreads;
  if (!fits) {
    return unsupported(
        "the GPU router covers up to 512 experts in up to 32 groups and up to 32 "
        "experts a row, not " +
        std::to_string(args.num_experts) + " experts in " + std::to_string(args.router.num_groups) +
        " groups and " + std::to_string(args.router.topk));
  }
  const dim3 grid(static_cast<unsigned>(std::max(1, args.rows)));
  const auto launch = [&](void (*kernel)(GateDispatchArgs)) {
    return launch_overlapped(kernel, grid, kGateThreads, args, stream, "the dispatch");
  };
  if (args.num_experts <= 128) return launch(gate_dispatch_kernel<4>);
  if (args.num_experts <= 256) return launch(gate_dispatch_kernel<8>);
  return launch(gate_dispatch_kernel<16>);
}

}  // namespace nanocp::cuda
