// Inner loops of the CPU backend, compiled once per instruction set. All kernels are pure functions
// of their arguments and may run on any thread.
#pragma once

#include <cstdint>

#include "tensor/weight.h"

namespace nanocp::cpu {

// out[m * out_stride + n] = x_m . w_n for the weight's rows n in [row_begin, row_end).
// x [num_rows, w.cols].
struct LinearRowsArgs {
  const tensor::WeightView* w;
  int64_t row_begin;
  int64_t row_end;
  const float* x;
  int64_t x_stride;
  int64_t num_rows;
  float* out;
  int64_t out_stride;
};

// out[c] = w[row, col_begin + c] for c in [0, count). col_begin is a multiple of 32.
struct DecodeRowArgs {
  const tensor::WeightView* w;
  int64_t row;
  int64_t col_begin;
  int64_t count;
  float* out;
};

// Tokens that one call of attend_tokens takes at most.
constexpr int kAttendTokensMax = 64;

// Adds up to kAttendTokensMax adjacent tokens to the running softmax of `num_queries` queries
// (Milakov and Gimelshein, 2018): row_max, row_sum and acc are the state.
struct AttendTokensArgs {
  const float* const* q;  // [num_queries] pointers to k_dim values, already scaled
  const float* k;         // token t at k + t * k_stride
  const float* v;
  const float* next_k;  // what the next call will read, fetched ahead; may be anything valid
  const float* next_v;
  int64_t k_stride;
  int64_t v_stride;
  int32_t num_queries;
  int32_t k_dim;
  int32_t v_dim;
  const int32_t* begin;  // [num_queries] query i sees tokens [begin[i], end[i])
  const int32_t* end;
  float* row_max;  // [num_queries]
  float* row_sum;  // [num_queries]
  float* acc;      // [num_queries, v_dim]
  float* scores;   // scratch [num_queries * (kAttendTokensMax + 16)]
};

struct SimdKernels {
  const char* name;
  void (*linear_rows)(const LinearRowsArgs& args);
  void (*decode_row)(const DecodeRowArgs& args);
  void (*attend_tokens)(const AttendTokensArgs& args);
};

// The best set for this processor; NANOCP_SIMD=baseline|avx2|avx512 in the environment picks a
// lower one. Chosen once.
const SimdKernels& simd_kernels();

// All sets that this processor can run, for tests.
struct SimdVariants {
  const SimdKernels* sets[3];
  int count;
};
SimdVariants supported_simd_variants();

}  // namespace nanocp::cpu
