// Two kernels, each with several blocks per row, one for each part of it. The first finds the
// largest logit of each part. The second joins these and, for rows that draw, runs the race; the
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
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int32_t kThreads = 256;
constexpr int32_t kPartsMax = 64;         // blocks of a row
constexpr int32_t kPartValuesMin = 2048;  // less is not worth a block
constexpr int32_t kLargestBlocks = 1056;  // all of a launch: eight on each of 132 processors
constexpr int32_t kRaceBlocks = 656;      // five
constexpr float kLargestFloat = 3.402823466e38F;
constexpr float kGreedyTemperature = 1e-5F;  // as in ops/sampling.cc
// No winner takes longer: the token with the largest logit has weight 1 and -log(1 - u) is at most
// 53 log 2 = 36.74.
constexpr float kTimeMax = 36.75F;
constexpr float kMargin = 1e-3F;  // relative, well above the error of the bounds in float
constexpr float kLog2E = 1.4426950408889634F;
constexpr double kInfiniteTime = 1e300;

// Working memory of one row; the same places whatever the bucket.
struct alignas(16) RowWork {
  uint64_t keys[kPartsMax];    // of the largest logit of each part
  double times[kPartsMax];     // of each part's winner
  int32_t winners[kPartsMax];  // its token
  uint32_t num_done;           // parts that are done; zero between launches
};

// How rows are cut for a kernel.
struct Parts {
  int32_t count;   // blocks of a row
  int32_t values;  // a multiple of kVectorValues
};

struct Params {
  SampleArgs args;
  RowWork* work;  // [num_samples]
  Parts largest;
  Parts race;
};

// Tokens [begin, end) of this block.
struct Range {
  int32_t begin;
  int32_t end;
};
__device__ Range block_range(const Parts& parts, int32_t vocab_size) {
  const int32_t begin = static_cast<int32_t>(blockIdx.x) * parts.values;
  return {begin, min(begin + parts.values, vocab_size)};
}

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

// Of eight adjacent tokens, the first of which is a multiple of 8.
__device__ uint32_t allowed_bits(const uint32_t* allowed, int32_t token) {
  if (allowed == nullptr) return 0xffU;
  return allowed[token / 32] >> (token % 32) & 0xffU;
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
  const auto [begin, end] = block_range(params.largest, params.args.vocab_size);
  const uint32_t* allowed = params.args.specs[sample].allowed;
  // A thread sees its tokens by rising id: the first of equal ones stays.
  int32_t i = begin + static_cast<int32_t>(threadIdx.x) * kVectorValues;
  float largest = -INFINITY;
  int32_t token = -1;
  for (; i < end; i += kThreads * kVectorValues) {
    const Vector8 x = load_logits<kBf16>(params.args, sample, i);
    const uint32_t bits = allowed_bits(allowed, i);
#pragma unroll
    for (int j = 0; j < kVectorValues; ++j) {
      const float logit = defined(x.v[j]);
      const bool is_possible = i + j < end && (bits >> j & 1U) != 0;
      if (is_possible && (logit > largest || token < 0)) {
        largest = logit;
        token = i + j;
      }
    }
  }
  uint64_t best = token < 0 ? 0 : make_key(largest, token);
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
  float log2_scale;  // 1 / (temperature * log 2)
  const uint32_t* allowed;
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

// Bounds of a token's time are u / weight, with its hash rounded down to steps, and
// u / (1 - u) / weight with it rounded up.
constexpr float kStep = 0x1.0p-23F;

__device__ float inverse_weight(const Draw& draw, float logit) {
  float finite;  // or NaN for a NaN, which no comparison below takes
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(finite) : "f"(logit), "f"(kLargestFloat));
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"((draw.largest - finite) * draw.log2_scale));
  return out;
}

// The upper 23 bits of mix_bits(x), whose last step does not change them, as a float in [0, 1).
__device__ float rounded_hash(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return __uint_as_float(0x3f800000U | static_cast<uint32_t>(x >> 41)) - 1.0F;
}

template <bool kBf16>
__device__ Vector8 load_until(const SampleArgs& args, int32_t sample, int32_t first, int32_t end) {
  if (first + kVectorValues <= end) return load_logits<kBf16>(args, sample, first);
  Vector8 x;
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    x.v[j] = first + j < end ? load_logit<kBf16>(args, sample, first + j) : -INFINITY;
  }
  return x;
}

// Eight adjacent tokens per lane, those from `end` on left out. `block_bound` holds the bits of a
// time at or above that of some token; it falls as the block sees faster ones. Times are not
// negative, and so order as their bits do. All lanes of the warp call it.
template <bool kBf16>
__device__ void race_vector(const SampleArgs& args, const Draw& draw, int32_t sample, int32_t first,
                            int32_t end, uint32_t* block_bound, Winner& winner) {
  const Vector8 x = load_until<kBf16>(args, sample, first, end);
  uint32_t bound = *static_cast<volatile uint32_t*>(block_bound);
  const float limit = __uint_as_float(bound) * (1.0F + kMargin);
  const uint32_t bits = first < end ? allowed_bits(draw.allowed, first) : 0U;
  const uint64_t counter = draw.random_bits + (static_cast<uint64_t>(first) + 1) * kGoldenRatio;
  float u[kVectorValues];
  float inverse[kVectorValues];
  uint32_t candidates = 0;
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    u[j] = rounded_hash(counter + j * kGoldenRatio);
    inverse[j] = inverse_weight(draw, x.v[j]);
    if (u[j] * inverse[j] <= limit) candidates |= 1U << j;
  }
  candidates &= bits;
  if (!__any_sync(0xffffffffU, candidates != 0)) return;
  float latest = __uint_as_float(bound);
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    if ((candidates >> j & 1U) == 0) continue;
    const float above = u[j] + kStep;
    latest = fminf(latest, __fdividef(above, 1.0F - above) * inverse[j] * (1.0F + kMargin));
  }
  bound = __reduce_min_sync(0xffffffffU, __float_as_uint(latest));
  if (threadIdx.x % 32 == 0) atomicMin(block_bound, bound);
#pragma unroll
  for (int j = 0; j < kVectorValues; ++j) {
    if (!(u[j] * inverse[j] <= __uint_as_float(bound) * (1.0F + kMargin))) candidates &= ~(1U << j);
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
  __shared__ uint32_t bound;
  const auto [begin, end] = block_range(params.race, params.args.vocab_size);
  const auto warp = static_cast<int32_t>(threadIdx.x / 32);
  const auto lane = static_cast<int32_t>(threadIdx.x % 32);
  Winner winner = {kInfiniteTime, 0};
  if (threadIdx.x == 0) bound = __float_as_uint(kTimeMax);
  __syncthreads();
  for (int32_t i = begin + warp * 32 * kVectorValues; i < end; i += kThreads * kVectorValues) {
    race_vector<kBf16>(params.args, draw, sample, i + lane * kVectorValues, end, &bound, winner);
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
  for (int32_t part = lane; part < params.race.count; part += 32) {
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
  for (auto part = static_cast<int32_t>(threadIdx.x % 32); part < params.largest.count;
       part += 32) {
    key = max(key, params.work[sample].keys[part]);
  }
  key = warp_max(key);
  const Draw draw = {spec.random_bits, key_logit(key), spec.temperature, kLog2E / spec.temperature,
                     spec.allowed};
  // No key: a mask without a token, which nobody should ask for; the answer is 0 as on the host.
  const bool greedy = key == 0 || spec.mode == SampleMode::kGreedy ||
                      spec.temperature < kGreedyTemperature || draw.largest == -INFINITY;
  if (greedy) {
    const int32_t token = key == 0 ? 0 : key_token(key);
    if (blockIdx.x == 0 && threadIdx.x == 0) params.args.tokens[sample] = token;
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

// About `blocks` for all rows together.
Parts cut_rows(const SampleArgs& args, int32_t blocks) {
  const int32_t wanted = std::clamp(blocks / args.num_samples, 1, kPartsMax);
  const int32_t count = std::min(wanted, divide_up(args.vocab_size, kPartValuesMin));
  const int32_t values =
      divide_up(divide_up(args.vocab_size, count), kVectorValues) * kVectorValues;
  return {divide_up(args.vocab_size, values), values};
}

template <bool kBf16>
Status launch(const Params& params, cudaStream_t stream) {
  const auto grid = [&](const Parts& parts) {
    return dim3(static_cast<unsigned>(parts.count), static_cast<unsigned>(params.args.num_samples));
  };
  NANOCP_RETURN_IF_ERROR(launch_overlapped(largest_kernel<kBf16>, grid(params.largest), kThreads,
                                           params, stream, "largest logits"));
  return launch_overlapped(choose_kernel<kBf16>, grid(params.race), kThreads, params, stream,
                           "sampling");
}

}  // namespace

size_t sampling_workspace_bytes(int32_t num_samples) {
  return sizeof(RowWork) * static_cast<size_t>(num_samples);
}

Status launch_sample(const SampleArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_args(args));
  const Params params = {args, static_cast<RowWork*>(args.workspace),
                         cut_rows(args, kLargestBlocks), cut_rows(args, kRaceBlocks)};
  return args.bf16_logits ? launch<true>(params, stream) : launch<false>(params, stream);
}

}  // namespace nanocp::cuda
