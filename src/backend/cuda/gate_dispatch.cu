// Router and dispatch in one kernel, a block per row: one warp chooses the experts, all threads
// push the row. The last block to finish raises the flags.
#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/expert_exchange.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kGateThreads = 256;
constexpr int kExpertsMax = 512;
constexpr int kTopkMax = 32;
constexpr int kGroupsMax = 32;
constexpr uint32_t kAllLanes = 0xffffffffU;
constexpr float kDropped = -INFINITY;

struct GateShared {
  float choice[kExpertsMax];
  int32_t idx[kTopkMax];
  float weights[kTopkMax];
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

// The largest choices one after another, ties to the lower expert.
template <int kPerLane>
__device__ void pick_experts(const GateDispatchArgs& args, LaneScores<kPerLane>& lanes,
                             GateShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t taken = 0;  // of this lane's experts
  for (int32_t k = 0; k < args.router.topk; ++k) {
    float best = kDropped;
    int32_t best_expert = kExpertsMax;
    float best_score = 0.0F;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int32_t e = lane + 32 * j;
      if ((taken >> j & 1U) != 0 || e >= args.num_experts) continue;
      if (best_expert == kExpertsMax || lanes.choice[j] > best) {
        best = lanes.choice[j];
        best_expert = e;
        best_score = lanes.score[j];
      }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best, distance);
      const int32_t expert = __shfl_xor_sync(kAllLanes, best_expert, distance);
      const float score = __shfl_xor_sync(kAllLanes, best_score, distance);
      const bool wins =
          best_expert == kExpertsMax || other > best || (other == best && expert < best_expert);
      if (expert != kExpertsMax && wins) {
        best = other;
        best_expert = expert;
        best_score = score;
      }
    }
    if (best_expert % 32 == lane) taken |= 1U << (best_expert / 32);
    if (lane == 0) {
      shared.idx[k] = min(best_expert, args.num_experts - 1);
      shared.weights[k] = best_score;
    }
  }
  __syncwarp();
  float weight = lane < args.router.topk ? shared.weights[lane] : 0.0F;
  const float sum = warp_sum(weight);
  float factor = args.router.scaling;
  if (args.router.renormalize) factor /= sum + 1e-20F;
  weight *= factor;
  if (lane < args.router.topk) shared.weights[lane] = weight;
}

__device__ int32_t owner_of(const GateDispatchArgs& args, int32_t expert) {
  return static_cast<int32_t>(static_cast<int64_t>(expert) * args.exchange.num_instances /
                              args.num_experts);
}

// The choice goes to all instances, the row to those that own one of its experts.
__device__ void push_row(const GateDispatchArgs& args, int32_t row, const GateShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const int64_t slot = static_cast<int64_t>(exchange.self) * exchange.max_rows + row;
  const int32_t topk = args.router.topk;
  const int64_t x_offset = exchange.offsets.dispatch_x + slot * exchange.hidden * 2;
  const auto* x = heap_at<const uint4>(exchange, exchange.self, x_offset);
  for (int32_t to = 0; to < exchange.num_instances; ++to) {
    bool wanted = false;
    for (int32_t k = 0; k < topk; ++k) wanted = wanted || owner_of(args, shared.idx[k]) == to;
    if (static_cast<int32_t>(threadIdx.x) < topk) {
      const int64_t at = slot * topk + threadIdx.x;
      heap_at<int32_t>(exchange, to, exchange.offsets.topk_idx)[at] = shared.idx[threadIdx.x];
      heap_at<float>(exchange, to, exchange.offsets.topk_weights)[at] = shared.weights[threadIdx.x];
    }
    if (!wanted || to == exchange.self) continue;
    auto* target = heap_at<uint4>(exchange, to, x_offset);
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < exchange.hidden / 8;
         i += kGateThreads) {
      target[i] = x[i];
    }
  }
}

template <int kPerLane>
__global__ void __launch_bounds__(kGateThreads)
    gate_dispatch_kernel(const __grid_constant__ GateDispatchArgs args) {
  __shared__ GateShared shared;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const int32_t num_rows = args.step.header->num_rows;
  if (row < num_rows) {
    if (threadIdx.x < 32) {
      LaneScores<kPerLane> lanes;
      compute_scores(args, row, lanes);
      if (args.router.group_score != ops::RouterGroupScore::kNone) {
        drop_groups(args, lanes, shared);
      }
      pick_experts(args, lanes, shared);
    }
    __syncthreads();
    push_row(args, row, shared);
  }
  if (!is_last_to_finish(args.counter)) return;
  const ExchangeView& exchange = args.exchange;
  for (int32_t to = 0; to < exchange.num_instances; ++to) {
    heap_at<int32_t>(exchange, to, exchange.offsets.dispatch_count)[exchange.self] = num_rows;
    if (to == exchange.self) continue;
    raise_flag(flag_of(exchange, to, FlagKind::kDispatch, exchange.self), number_of(args.epoch));
  }
}

}  // namespace

Status launch_gate_dispatch(const GateDispatchArgs& args, cudaStream_t stream) {
  const bool fits = args.num_experts >= 1 && args.num_experts <= kExpertsMax &&
                    args.router.topk >= 1 && args.router.topk <= kTopkMax &&
                    args.router.topk <= args.num_experts && args.router.num_groups >= 1 &&
                    args.router.num_groups <= kGroupsMax &&
                    args.num_experts % args.router.num_groups == 0;
  if (!fits) {
    return unsupported(
        "the GPU router covers up to 512 experts in up to 32 groups and up to 32 "
        "experts a row, not " +
        std::to_string(args.num_experts) + " experts in " + std::to_string(args.router.num_groups) +
        " groups and " + std::to_string(args.router.topk));
  }
  const auto grid = static_cast<unsigned>(std::max(1, args.rows));
  if (args.num_experts <= 128) {
    gate_dispatch_kernel<4><<<grid, kGateThreads, 0, stream>>>(args);
  } else if (args.num_experts <= 256) {
    gate_dispatch_kernel<8><<<grid, kGateThreads, 0, stream>>>(args);
  } else {
    gate_dispatch_kernel<16><<<grid, kGateThreads, 0, stream>>>(args);
  }
  return cuda_status(cudaGetLastError(), "launch of the dispatch");
}

}  // namespace nanocp::cuda
