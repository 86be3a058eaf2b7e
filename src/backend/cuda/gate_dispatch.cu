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
  float score[kExpertsMax];
  float choice[kExpertsMax];
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

// What is added to the logits and to the scores: constants, loaded ahead of the logits.
template <int kPerLane>
__device__ void load_biases(const GateDispatchArgs& args, LaneScores<kPerLane>& lanes) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + 32 * j;
    const bool exists = e < args.num_experts;
    lanes.score[j] = exists && args.router_bias != nullptr ? args.router_bias[e] : 0.0F;
    lanes.choice[j] = exists && args.correction_bias != nullptr ? args.correction_bias[e] : 0.0F;
  }
}

// Turns biases into scores.
template <int kPerLane>
__device__ void compute_scores(const GateDispatchArgs& args, int32_t row,
                               LaneScores<kPerLane>& lanes) {
  const int lane = static_cast<int>(threadIdx.x);
  const float* logits = args.logits + static_cast<int64_t>(row) * args.num_experts;
  float largest = kDropped;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + 32 * j;
    lanes.score[j] = e < args.num_experts ? logits[e] + lanes.score[j] : kDropped;
    largest = fmaxf(largest, lanes.score[j]);
  }
  const bool softmax = args.router.score == ops::RouterScore::kSoftmax;
  float factor = 1.0F;
  if (softmax) {
    largest = warp_max(largest);
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      lanes.score[j] = expf(lanes.score[j] - largest);
      sum += lanes.score[j];
    }
    factor = 1.0F / warp_sum(sum);
  }
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const float score = softmax ? lanes.score[j] * factor : 1.0F / (1.0F + expf(-lanes.score[j]));
    lanes.score[j] = score;
    lanes.choice[j] = lane + 32 * j < args.num_experts ? score + lanes.choice[j] : kDropped;
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

// Rises with the value, NaN lowest; never 0.
__device__ uint32_t ordered(float value) {
  if (isnan(value)) return 1;
  const uint32_t bits = __float_as_uint(value);
  return max(1U, (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U);
}

// Largest first, by a bitonic network. Requires: kCount is a power of two.
template <int kCount>
__device__ void sort_falling(uint64_t (&keys)[kCount]) {
#pragma unroll
  for (int size = 2; size <= kCount; size *= 2) {
#pragma unroll
    for (int step = size / 2; step > 0; step /= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if ((i & step) != 0) continue;
        const uint64_t larger = max(keys[i], keys[i + step]);
        const uint64_t smaller = min(keys[i], keys[i + step]);
        const bool falls = (i & size) == 0;
        keys[i] = falls ? larger : smaller;
        keys[i + step] = falls ? smaller : larger;
      }
    }
  }
}

// The largest choices one after another, ties to the lower expert. Lane k returns the k-th expert.
// A lane's keys are in order, so that each round compares their heads.
template <int kPerLane>
__device__ int32_t pick_experts(const GateDispatchArgs& args, const LaneScores<kPerLane>& lanes) {
  const int lane = static_cast<int>(threadIdx.x);
  uint64_t keys[kPerLane];  // the order of the choice and that of the expert; 0: none
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = lane + 32 * j;
    const uint64_t key = static_cast<uint64_t>(ordered(lanes.choice[j])) << 32 |
                         static_cast<uint32_t>(kExpertsMax - e);
    keys[j] = e < args.num_experts ? key : 0;
  }
  sort_falling(keys);
  uint32_t picked = kExpertsMax;
  for (int32_t k = 0; k < args.router.topk; ++k) {
    const auto choice = static_cast<uint32_t>(keys[0] >> 32);
    const auto expert = static_cast<uint32_t>(keys[0]);
    const uint32_t largest = __reduce_max_sync(kAllLanes, choice);
    const uint32_t winner = __reduce_max_sync(kAllLanes, choice == largest ? expert : 0);
    if (lane == k) picked = winner;
    if (expert != winner) continue;
#pragma unroll
    for (int j = 0; j + 1 < kPerLane; ++j) keys[j] = keys[j + 1];
    keys[kPerLane - 1] = 0;
  }
  return kExpertsMax - static_cast<int32_t>(picked);
}

// Lane k's weight of the k-th expert.
template <int kPerLane>
__device__ float weight_of(const GateDispatchArgs& args, const LaneScores<kPerLane>& lanes,
                           int32_t expert, GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) shared.score[lane + 32 * j] = lanes.score[j];
  __syncwarp();
  const float weight = lane < args.router.topk ? shared.score[expert] : 0.0F;
  float factor = args.router.scaling;
  if (args.router.renormalize) factor /= warp_sum(weight) + 1e-20F;
  return weight * factor;
}

// The other instances that own one of the warp's experts, each once.
__device__ void list_owners(const GateDispatchArgs& args, int32_t expert, GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  const int32_t owner =
      lane < args.router.topk ? expert * args.exchange.num_instances / args.num_experts : -1;
  const uint32_t before = (1U << lane) - 1U;
  const uint32_t same = __match_any_sync(kAllLanes, owner);
  const bool first = owner >= 0 && owner != args.exchange.self && (same & before) == 0;
  const uint32_t firsts = __ballot_sync(kAllLanes, first);
  if (first) shared.owners[__popc(firsts & before)] = owner;
  if (lane == 0) shared.num_owners = __popc(firsts);
}

// Lane k sends the k-th choice for a row to all instances.
__device__ void post_choices(const GateDispatchArgs& args, int32_t row, uint64_t epoch,
                             int32_t expert, float weight, const GateShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const auto k = static_cast<int32_t>(threadIdx.x);
  if (k >= args.router.topk) return;
  for (int32_t i = 1; i <= exchange.num_instances; ++i) {  // this one last
    const int32_t to = exchange.self + i < exchange.num_instances
                           ? exchange.self + i
                           : exchange.self + i - exchange.num_instances;
    store_whole(choices_of(exchange, shared.base[to], epoch, exchange.self, row) + k,
                {expert, weight, epoch});
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
                                uint64_t epoch, LaneScores<kPerLane>& lanes, GateShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const bool to_all = num_rows <= kRowsToAll;
  if (threadIdx.x < 32) {
    compute_scores(args, row, lanes);
    if (args.router.group_score != ops::RouterGroupScore::kNone) drop_groups(args, lanes, shared);
    const int32_t expert = pick_experts(args, lanes);
    const float weight = weight_of(args, lanes, expert, shared);
    post_choices(args, row, epoch, expert, weight, shared);
    if (!to_all) list_owners(args, expert, shared);
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
  LaneScores<kPerLane> lanes;
  if (thread < 32) load_biases(args, lanes);
  __syncthreads();
  cudaGridDependencySynchronize();
  if (row == 0 && thread >= kGateThreads - 32) post_row_count(exchange, num_rows, epoch, shared);
  if (row < num_rows) choose_and_push(args, row, num_rows, epoch, lanes, shared);
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
