// Two kernels, each with several blocks per row. The first finds the largest logit of each part of
// a row. The second joins these and, for rows that draw, runs the race over the same parts; the
// last block of a row to finish joins the parts' winners.
//
// The race must end as on the host, whose arithmetic is double. Almost all tokens are ruled out by
// bounds in float first: with u the hash of a token in [0, 1), its time -log(1 - u) / weight is
// between u / weight and u / (1 - u) / weight.
#include "backend/cuda/sampling.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "backend/cuda/device/hash.cuh"
#include "backend/cuda/device/row_vector.cuh"
#include "backend/cuda/row_ops_launch.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int32_t kThreads = 256;
constexpr int32_t kPartsMax = 64;         // blocks of a row
constexpr int32_t kPartValuesMin = 2048;  // less is not worth a block
constexpr int32_t kGridWanted = 1056;     // eight blocks on each of 132 processors
constexpr float kLargestFloat = 3.402823466e38F;
constexpr float kGreedyTemperature = 1e-5F;  // as in ops/sampling.cc
// No winner takes longer: the token with the largest logit has weight 1 and -log(1 - u) is at most
// 53 log 2 = 36.74.
constexpr float kTimeMax = 36.75F;
constexpr float kMargin = 1e-3F;  // relative, well above the error of the bounds in float
constexpr double kInfiniteTime = 1e300;

// Working memory of one row; the same places whatever the bucket.
struct alignas(16) RowWork {
  uint64_t keys[kPartsMax];    // of the largest logit of each part
  double times[kPartsMax];     // of each part's winner
  int32_t winners[kPartsMax];  // its token
  uint32_t num_done;           // parts that are done; zero between launches
};

struct Params {
  SampleArgs args;
  RowWork* work;  // [num_samples]
  int32_t num_parts;
  int32_t part_values;  // a multiple of kVectorValues
};

__device__ float defined(float logit) {
  return fminf(fmaxf(logit, -INFINITY), kLargestFloat);  // fmaxf drops a NaN
}

// Keys order as logits do, and equal logits by falling id. No key is 0.
__device__ uint64_t make_key(float logit, int32_t token) {
  const uint32_t bits = logit == 0.0F ? 0U : __float_as_uint(logit);
  const uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<uint64_t>(ordered) << 32 | ~static_cast<uint32_t>(token);
}
__device__ int32_t key_token(uint64_t key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
__device__ float key_logit(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((ordered & 0x80000000U) != 0 ? ordered & 0x7fffffffU : ~ordered);
}

template <bool kBf16>
__device__ Vector8 load_logits(const SampleArgs& args, int32_t sample, int32_t token) {
  const int64_t at = sample * args.logits_stride + token;
  if constexpr (kBf16) {
    return load_bf16(args.logits, at);
  } else {
    return load_float(static_cast<const float*>(args.logits), at);
  }
}

template <bool kBf16>
__device__ float load_logit(const SampleArgs& args, int32_t sample, int32_t token) {
  const int64_t at = sample * args.logits_stride + token;
  if constexpr (kBf16) {
    return __bfloat162float(static_cast<const __nv_bfloat16*>(args.logits)[at]);
  } else {
    return static_cast<const float*>(args.logits)[at];
  }
}

__device__ uint64_t warp_max(uint64_t key) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    key = max(key, __shfl_xor_sync(0xffffffffU, key, distance));
  }
  return key;
}

template <bool kBf16>
__global__ void __launch_bounds__(kThreads) largest_kernel(const __grid_constant__ Params params) {
  __shared__ uint64_t shared[kThreads / 32];
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const auto sample = static_cast<int32_t>(blockIdx.y);
  const auto part = static_cast<int32_t>(blockIdx.x);
  if (sample >= params.args.header->num_samples) return;
  const int32_t begin = part * params.part_values;
  const int32_t end = min(begin + params.part_values, params.args.vocab_size);
  // A thread sees its tokens by rising id: the first of equal ones stays.
  int32_t i = begin + static_cast<int32_t>(threadIdx.x) * kVectorValues;
  float largest = -INFINITY;
  int32_t token = i;
  uint64_t best = 0;
  if (i < end) {
    for (; i < end; i += kThreads * kVectorValues) {
      const Vector8 x = load_logits<kBf16>(params.args, sample, i);
#pragma unroll
      for (int j = 0; j < kVectorValues; ++j) {
        const float logit = defined(x.v[j]);
        if (logit > largest && i + j < end) {
          largest = logit;
          token = i + j;
        }
      }
    }
    best = make_key(largest, token);
  }
  best = warp_max(best);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = warp_max(threadIdx.x < kThreads / 32 ? shared[threadIdx.x] : 0);
  if (threadIdx.x == 0) params.work[sample].keys[part] = best;
}

// A row's draw: what is the same for all its tokens.
struct Draw {
  uint64_t random_bits;
  float largest;
  float temperature;
  float inverse_temperature;
};

struct Winner {
  double time;
  int32_t token;
};

__device__ void take_earlier(Winner& winner, double time, int32_t token) {
  if (time < winner.time || (time == winner.time && token < winner.token)) winner = {time, token};
}

__device__ uint64_t token_bits(const Draw& draw, int32_t token) {
  return mix_bits(draw.random_bits + (static_cast<uint64_t>(token) + 1) * kGoldenRatio);
}

// As on the host.
__device__ void race_exactly(const Draw& draw, float logit, int32_t token, Winner& winner) {
  const double distance = static_cast<double>(logit) - static_cast<double>(draw.largest);
  const double weight = exp(distance / static_cast<double>(draw.temperature));
  if (weight == 0.0) return;
  const double u = static_cast<double>(token_bits(draw, token) >> 11) * 0x1.0p-53;
  take_earlier(winner, -log1p(-u) / weight, token);
}

// A lower bound of a token's time, in float; infinite where the weight is below any that can win.
struct EarlyBound {
  float u;        // the hash in [0, 1), rounded down to kStep
  float inverse;  // 1 / weight
  __device__ float time() const { return u * inverse * (1.0F - kMargin); }
};
constexpr float kStep = 0x1.0p-23F;

__device__ EarlyBound early_bound(const Draw& draw, float logit, int32_t token) {
  const auto bits = static_cast<uint32_t>(token_bits(draw, token) >> 41);
  const float u = __uint_as_float(0x3f800000U | bits) - 1.0F;
  return {u, __expf((draw.largest - defined(logit)) * draw.inverse_temperature)};
}

// The other side: u / (1 - u) / weight, with u rounded up.
__device__ float late_bound(const EarlyBound& early) {
  const float u = early.u + kStep;
  return __fdividef(u, 1.0F - u) * early.inverse * (1.0F + kMargin);
}

// Eight adjacent tokens per lane, those from `end` on left out. `bound` is at or above the time of
// some token; it falls as the warp sees faster ones. All lanes of the warp call it.
template <bool kBf16>
__device__ void race_vector(const SampleArgs& args, const Draw& draw, int32_t sample, int32_t first,
                            int32_t end, float& bound, Winner& winner) {
  Vector8 x = {};
  if (first < end) x = load_logits<kBf16>(args, sample, first);
  EarlyBound early[kVectorValues];
  uint32_t candidates = 0;
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    early[j] = early_bound(draw, x.v[j], first + j);
    if (early[j].time() <= bound && first + j < end) candidates |= 1U << j;
  }
  if (!__any_sync(0xffffffffU, candidates != 0)) return;
  float latest = bound;
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    if ((candidates >> j & 1U) != 0) latest = fminf(latest, late_bound(early[j]));
  }
  // Times are not negative, and so order as their bits do.
  bound = __uint_as_float(__reduce_min_sync(0xffffffffU, __float_as_uint(latest)));
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    if (!(early[j].time() <= bound)) candidates &= ~(1U << j);
  }
#pragma unroll 1
  for (; candidates != 0; candidates &= candidates - 1) {
    const int32_t token = first + __ffs(static_cast<int>(candidates)) - 1;
    race_exactly(draw, defined(load_logit<kBf16>(args, sample, token)), token, winner);
  }
}

__device__ void warp_earliest(Winner& winner) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const double time = __shfl_xor_sync(0xffffffffU, winner.time, distance);
    const int32_t token = __shfl_xor_sync(0xffffffffU, winner.token, distance);
    take_earlier(winner, time, token);
  }
}

// The winner of the block's part, in the first warp.
template <bool kBf16>
__device__ Winner race_part(const Params& params, const Draw& draw, int32_t sample) {
  __shared__ Winner shared[kThreads / 32];
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * params.part_values;
  const int32_t end = min(begin + params.part_values, params.args.vocab_size);
  const auto warp = static_cast<int32_t>(threadIdx.x / 32);
  const auto lane = static_cast<int32_t>(threadIdx.x % 32);
  Winner winner = {kInfiniteTime, 0};
  float bound = kTimeMax;
  for (int32_t i = begin + warp * 32 * kVectorValues; i < end; i += kThreads * kVectorValues) {
    race_vector<kBf16>(params.args, draw, sample, i + lane * kVectorValues, end, bound, winner);
  }
  warp_earliest(winner);
  if (lane == 0) shared[warp] = winner;
  __syncthreads();
  if (warp == 0) {
    winner = lane < kThreads / 32 ? shared[lane] : Winner{kInfiniteTime, 0};
    warp_earliest(winner);
  }
  return winner;
}

// Leaves the part's winner for the row's last block, which joins them all. The first warp.
__device__ void join_parts(const Params& params, int32_t sample, const Winner& part_winner) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  RowWork& work = params.work[sample];
  bool is_last = false;
  if (lane == 0) {
    work.times[blockIdx.x] = part_winner.time;
    work.winners[blockIdx.x] = part_winner.token;
    __threadfence();
    is_last = atomicInc(&work.num_done, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  if (!__any_sync(0xffffffffU, is_last)) return;
  Winner winner = {kInfiniteTime, 0};
  for (int32_t part = lane; part < params.num_parts; part += 32) {
    take_earlier(winner, __ldcg(work.times + part), __ldcg(work.winners + part));
  }
  warp_earliest(winner);
  if (lane == 0) params.args.tokens[sample] = winner.token;
}

template <bool kBf16>
__global__ void __launch_bounds__(kThreads) choose_kernel(const __grid_constant__ Params params) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const auto sample = static_cast<int32_t>(blockIdx.y);
  if (sample >= params.args.header->num_samples) return;
  const SampleSpec spec = params.args.specs[sample];
  if (spec.mode == SampleMode::kSkip) return;
  // Every warp joins the parts for itself.
  uint64_t key = 0;
  for (auto part = static_cast<int32_t>(threadIdx.x % 32); part < params.num_parts; part += 32) {
    key = max(key, params.work[sample].keys[part]);
  }
  key = warp_max(key);
  const Draw draw = {spec.random_bits, key_logit(key), spec.temperature, 1.0F / spec.temperature};
  const bool greedy = spec.mode == SampleMode::kGreedy || spec.temperature < kGreedyTemperature ||
                      draw.largest == -INFINITY;
  if (greedy) {
    if (blockIdx.x == 0 && threadIdx.x == 0) params.args.tokens[sample] = key_token(key);
    return;
  }
  const Winner winner = race_part<kBf16>(params, draw, sample);
  if (threadIdx.x < 32) join_parts(params, sample, winner);
}

Status check_args(const SampleArgs& args) {
  if (args.num_samples < 1 || args.num_samples > 65535 || args.vocab_size < 1) {
    return invalid_argument("sampling of " + std::to_string(args.num_samples) + " rows of " +
                            std::to_string(args.vocab_size) + " logits");
  }
  if (args.logits_stride < args.vocab_size || args.logits_stride % kVectorValues != 0) {
    return invalid_argument("rows of " + std::to_string(args.vocab_size) +
                            " logits need a stride that is a multiple of 8, not " +
                            std::to_string(args.logits_stride));
  }
  return ok_status();
}

Params make_params(const SampleArgs& args) {
  Params params = {};
  params.args = args;
  params.work = static_cast<RowWork*>(args.workspace);
  const int32_t wanted = std::clamp(kGridWanted / args.num_samples, 8, kPartsMax);
  const int32_t parts = std::min(wanted, divide_up(args.vocab_size, kPartValuesMin));
  params.part_values = divide_up(divide_up(args.vocab_size, parts), kVectorValues) * kVectorValues;
  params.num_parts = divide_up(args.vocab_size, params.part_values);
  return params;
}

template <bool kBf16>
Status launch(const Params& params, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(params.num_parts),
                  static_cast<unsigned>(params.args.num_samples));
  NANOCP_RETURN_IF_ERROR(
      launch_overlapped(largest_kernel<kBf16>, grid, kThreads, params, stream, "largest logits"));
  return launch_overlapped(choose_kernel<kBf16>, grid, kThreads, params, stream, "sampling");
}

}  // namespace

size_t sampling_workspace_bytes(int32_t num_samples) {
  return sizeof(RowWork) * static_cast<size_t>(num_samples);
}

Status launch_sample(const SampleArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_args(args));
  const Params params = make_params(args);
  return args.bf16_logits ? launch<true>(params, stream) : launch<false>(params, stream);
}

}  // namespace nanocp::cuda
