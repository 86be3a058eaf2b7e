// Stand-ins for attention and experts, and plain references, of the exchange check. Every value is
// a function of the epoch and its place, so that the reference needs nothing from other instances.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device_step.h"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/expert_plan.h"
#include "backend/cuda/shard_exchange.h"

namespace nanocp::bench {

struct Mistakes {
  unsigned long long checked;
  unsigned long long count;
  unsigned long long epoch;  // of the first one
  int32_t what;              // 0 merge, 1 residual, 2 norm
  int32_t row;
  int32_t column;
  float got;
  float expected;
};

// Device memory of one instance; shapes as the arguments of the kernels under check.
struct Work {
  cuda::DeviceStep step;
  cuda::ExchangeView exchange;
  int32_t num_experts;
  int32_t expert_begin;
  int32_t num_local_experts;
  cuda::ExpertLists lists;
  float* logits;
  float* out;
  float* lse;
  float* sinks;
  __nv_bfloat16* merged;
  __nv_bfloat16* y;
  __nv_bfloat16* shared;
  float* norm;
  float* residual;
  __nv_bfloat16* x;
  uint32_t* counters;
  Mistakes* mistakes;
};

enum Stream : uint64_t { kQuery = 1, kX, kLogit, kResidual, kShared, kLse, kSink, kNorm };

__device__ inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
__device__ inline uint64_t bits(Stream stream, uint64_t epoch, int32_t instance, int64_t at) {
  return mix(mix(epoch * 64 + static_cast<uint64_t>(instance)) + stream * 0x9e3779b97f4a7c15ULL +
             static_cast<uint64_t>(at) * 0xd1b54a32d192ed03ULL);
}
// -2 .. 2 in steps of 1/64: exact in bf16.
__device__ inline float value(Stream stream, uint64_t epoch, int32_t instance, int64_t at) {
  return static_cast<float>(bits(stream, epoch, instance, at) >> 40 & 255U) / 64.0F - 2.0F;
}
// The LSE of row or slot `slot` of `source` at instance `at`: one in eight saw nothing.
__device__ inline float lse_of(uint64_t epoch, int32_t at, int32_t source, int64_t slot,
                               int32_t head) {
  const int64_t place = (static_cast<int64_t>(source) * 4096 + slot) * 1024 + head;
  const uint64_t random = bits(kLse, epoch, at, place);
  if (random % 8 == 0) return -INFINITY;
  return static_cast<float>(random >> 40 & 1023U) / 64.0F - 8.0F;
}
__device__ inline float factor_of(int32_t expert) {
  return 1.0F + 0.125F * static_cast<float>(expert % 16);
}
__device__ inline float share_of(int32_t instance) {
  return 1.0F + 0.25F * static_cast<float>(instance);
}
__device__ inline float rounded(double v) {
  return __bfloat162float(__float2bfloat16_rn(static_cast<float>(v)));
}

__global__ void delay_kernel(uint64_t ns) {
  const uint64_t end = cuda::device::global_time_ns() + ns;
  while (cuda::device::global_time_ns() < end) {
  }
}

// Holds the stream until the queries (and K/V) of all received rows have arrived: attention of the
// engine waits inside its kernel. One block.
__global__ void wait_queries_kernel(Work w, cuda::ExchangeEpoch epoch) {
  const cuda::ExchangeView& e = w.exchange;
  for (auto source = static_cast<int32_t>(threadIdx.x); source < e.num_instances;
       source += static_cast<int32_t>(blockDim.x)) {
    if (source == e.self || w.step.num_received[source] == 0) continue;
    const auto* flag = cuda::device::flag_of(e, e.self, cuda::FlagKind::kQuery, source);
    cuda::device::wait_for_flag(flag, cuda::device::number_of(epoch), e.wait,
                                cuda::WaitPurpose::kQuery, source);
  }
}

__device__ inline __nv_bfloat16* own_x(const Work& w, int64_t row) {
  const cuda::ExchangeView& e = w.exchange;
  return cuda::device::heap_at<__nv_bfloat16>(e, e.self, e.offsets.dispatch_x) +
         (static_cast<int64_t>(e.self) * e.max_rows + row) * e.hidden;
}
__device__ inline __nv_bfloat16* query_row(const Work& w, int64_t row) {
  const cuda::ExchangeView& e = w.exchange;
  return cuda::device::heap_at<__nv_bfloat16>(e, e.self, e.offsets.query) + row * e.query_values;
}

// A block per own row.
__global__ void fill_kernel(const __grid_constant__ Work w, uint64_t epoch) {
  const cuda::ExchangeView& e = w.exchange;
  const auto row = static_cast<int64_t>(blockIdx.x);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto threads = static_cast<int32_t>(blockDim.x);
  for (int32_t i = thread; i < e.query_values; i += threads) {
    query_row(w, row)[i] = __float2bfloat16(value(kQuery, epoch, e.self, row * 131072 + i));
  }
  for (int32_t i = thread; i < e.partial_values; i += threads) {
    w.merged[row * e.partial_values + i] = __float2bfloat16(NAN);
  }
  for (int32_t i = thread; i < e.hidden; i += threads) {
    const int64_t at = row * e.hidden + i;
    own_x(w, row)[i] = __float2bfloat16(value(kX, epoch, e.self, at));
    w.residual[at] = value(kResidual, epoch, e.self, at);
    w.shared[at] = __float2bfloat16(value(kShared, epoch, e.self, at));
    w.x[at] = __float2bfloat16(NAN);
    if (row == 0) w.norm[i] = value(kNorm, epoch, e.self, i);
  }
  for (int32_t i = thread; i < w.num_experts; i += threads) {
    const int64_t at = row * w.num_experts + i;
    w.logits[at] = static_cast<float>(bits(kLogit, epoch, e.self, at) >> 40) * 0x1p-22F;
  }
  if (row != 0) return;
  for (int32_t i = thread; i < e.num_heads; i += threads) {
    w.sinks[i] = value(kSink, epoch, e.self, i);
  }
}

__device__ inline void attend_row(const Work& w, uint64_t epoch, int32_t source, int64_t slot) {
  const cuda::ExchangeView& e = w.exchange;
  const int64_t row =
      source == e.self ? slot : static_cast<int64_t>(1 + source) * e.max_rows + slot;
  const int32_t k_dim = e.query_values / e.num_heads;
  const int32_t v_dim = e.partial_values / e.num_heads;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < e.partial_values;
       i += static_cast<int32_t>(blockDim.x)) {
    const int32_t head = i / v_dim;
    const float lse = lse_of(epoch, e.self, source, slot, head);
    const float q = __bfloat162float(query_row(w, row)[head * k_dim + i % v_dim]);
    // What saw nothing must not be read.
    w.out[row * e.partial_values + i] = lse == -INFINITY ? NAN : q * share_of(e.self);
    if (i % v_dim == 0) w.lse[row * e.num_heads + head] = lse;
  }
}

// Block r stands in for the attention of own row r and of slot r of each source.
__global__ void attend_kernel(const __grid_constant__ Work w, uint64_t epoch) {
  const auto slot = static_cast<int32_t>(blockIdx.x);
  for (int32_t source = 0; source < w.exchange.num_instances; ++source) {
    const int32_t count =
        source == w.exchange.self ? w.step.header->num_rows : w.step.num_received[source];
    if (slot < count) attend_row(w, epoch, source, slot);
  }
}

// y of each assignment := its row times a factor of its expert.
__global__ void expert_kernel(const __grid_constant__ Work w) {
  const cuda::ExchangeView& e = w.exchange;
  const auto* x = cuda::device::heap_at<const __nv_bfloat16>(e, e.self, e.offsets.dispatch_x);
  for (auto t = static_cast<int32_t>(blockIdx.x); t < *w.lists.num_tiles;
       t += static_cast<int32_t>(gridDim.x)) {
    const cuda::TokenTile tile = w.lists.tiles[t];
    const float factor = factor_of(w.expert_begin + tile.expert);
    for (int32_t a = tile.begin; a < tile.begin + tile.count; ++a) {
      const int64_t row = w.lists.row_of[a];
      for (int32_t i = static_cast<int32_t>(threadIdx.x); i < e.hidden;
           i += static_cast<int32_t>(blockDim.x)) {
        const float from = __bfloat162float(x[row * e.hidden + i]);
        w.y[static_cast<int64_t>(a) * e.hidden + i] = __float2bfloat16(from * factor);
      }
    }
  }
}

__device__ inline void compare(const Work& w, uint64_t epoch, int32_t what, int32_t row,
                               int32_t column, float got, double expected, double allowed) {
  if (fabs(static_cast<double>(got) - expected) <= allowed) return;  // false for NaN
  if (atomicAdd(&w.mistakes->count, 1ULL) != 0) return;
  w.mistakes->epoch = epoch;
  w.mistakes->what = what;
  w.mistakes->row = row;
  w.mistakes->column = column;
  w.mistakes->got = got;
  w.mistakes->expected = static_cast<float>(expected);
}

__device__ inline double expected_merge(const Work& w, uint64_t epoch, int32_t row, int32_t column,
                                        bool with_sinks) {
  const cuda::ExchangeView& e = w.exchange;
  const int32_t k_dim = e.query_values / e.num_heads;
  const int32_t v_dim = e.partial_values / e.num_heads;
  const int32_t head = column / v_dim;
  const int64_t at = static_cast<int64_t>(row) * 131072 + head * k_dim + column % v_dim;
  const float q = value(kQuery, epoch, e.self, at);
  double sum = 0.0;
  double total = with_sinks ? exp(static_cast<double>(value(kSink, epoch, e.self, head))) : 0.0;
  const auto add = [&](int32_t from, int64_t slot, bool is_local) {
    const float lse = lse_of(epoch, from, e.self, slot, head);
    if (lse == -INFINITY) return;
    const double weight = exp(static_cast<double>(lse));
    const float out = q * share_of(from);
    sum += weight * (is_local ? out : rounded(out));
    total += weight;
  };
  add(e.self, row, true);
  for (int32_t i = w.step.merge_begin[row]; i < w.step.merge_begin[row + 1]; ++i) {
    add(w.step.merges[i].destination, w.step.merges[i].slot, false);
  }
  return total > 0.0 ? sum / total : 0.0;
}

__global__ void check_merge_kernel(const __grid_constant__ Work w, uint64_t epoch,
                                   bool with_sinks) {
  const auto row = static_cast<int32_t>(blockIdx.x);
  if (row >= w.step.header->num_rows) return;
  const int32_t values = w.exchange.partial_values;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < values;
       i += static_cast<int32_t>(blockDim.x)) {
    const double expected = expected_merge(w, epoch, row, i, with_sinks);
    const float got = __bfloat162float(w.merged[static_cast<int64_t>(row) * values + i]);
    compare(w, epoch, 0, row, i, got, expected, 1e-4 + fabs(expected) / 200.0);
  }
  if (threadIdx.x == 0) {
    atomicAdd(&w.mistakes->checked, static_cast<unsigned long long>(values));
  }
}

// Choices and weights are read from the own region, where this GPU wrote them.
__device__ inline double expected_residual(const Work& w, uint64_t epoch, int32_t row,
                                           int32_t column, bool with_shared) {
  const cuda::ExchangeView& e = w.exchange;
  const int64_t at = static_cast<int64_t>(row) * e.hidden + column;
  const cuda::ExpertChoice* choices =
      cuda::device::choices_of(e, e.base[e.self], epoch, e.self, row);
  double total = value(kResidual, epoch, e.self, at);
  if (with_shared) total += value(kShared, epoch, e.self, at);
  const float x = value(kX, epoch, e.self, at);
  for (int32_t from = 0; from < e.num_instances; ++from) {
    double sum = 0.0;
    for (int32_t k = 0; k < e.topk; ++k) {
      const cuda::ExpertChoice choice = choices[k];
      if (choice.expert * e.num_instances / w.num_experts != from) continue;
      sum += static_cast<double>(choice.weight) * rounded(x * factor_of(choice.expert));
    }
    total += from == e.self ? sum : rounded(sum);
  }
  return total;
}

// A block per own row. A returned sum may be rounded to the other side: 1/32 for sums up to 8.
__global__ void check_combine_kernel(const __grid_constant__ Work w, uint64_t epoch,
                                     bool with_shared) {
  const cuda::ExchangeView& e = w.exchange;
  const auto row = static_cast<int32_t>(blockIdx.x);
  if (row >= w.step.header->num_rows) return;
  __shared__ double squares;
  if (threadIdx.x == 0) squares = 0.0;
  __syncthreads();
  double own = 0.0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < e.hidden;
       i += static_cast<int32_t>(blockDim.x)) {
    const double expected = expected_residual(w, epoch, row, i, with_shared);
    own += expected * expected;
    const float got = w.residual[static_cast<int64_t>(row) * e.hidden + i];
    compare(w, epoch, 1, row, i, got, expected, 0.035);
  }
  atomicAdd(&squares, own);
  __syncthreads();
  const double scale = 1.0 / sqrt(squares / e.hidden + 1e-6);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < e.hidden;
       i += static_cast<int32_t>(blockDim.x)) {
    const double expected = expected_residual(w, epoch, row, i, with_shared) * scale *
                            static_cast<double>(value(kNorm, epoch, e.self, i));
    const float got = __bfloat162float(w.x[static_cast<int64_t>(row) * e.hidden + i]);
    compare(w, epoch, 2, row, i, got, expected, 0.07 * scale + 1e-3 + fabs(expected) / 200.0);
  }
  if (threadIdx.x == 0) {
    atomicAdd(&w.mistakes->checked, static_cast<unsigned long long>(2 * e.hidden));
  }
}

}  // namespace nanocp::bench
