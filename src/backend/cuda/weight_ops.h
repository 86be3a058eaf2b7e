// Fills and converts weights in device memory while a model is loaded. All pointers, also those
// inside a WeightView, are device memory of the current device. Asynchronous on the stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "base/result.h"
#include "tensor/weight.h"

namespace nanocp::cuda {

// data[i] (bf16) uniform in [-amplitude, amplitude), a pure function of seed and i.
Status launch_fill_dummy(void* data, int64_t count, float amplitude, uint64_t seed,
                         cudaStream_t stream);

struct FillBitsArgs {
  void* data = nullptr;    // has room for size_bytes rounded up to a multiple of 8
  int64_t size_bytes = 0;  // written in words of 8
  uint64_t keep = 0;       // word = (random & keep) | set
  uint64_t set = 0;
  uint64_t seed = 0;
};
// Random bits under a pattern, a pure function of seed and place: dummy weights of formats that
// have scales.
Status launch_fill_bits(const FillBitsArgs& args, cudaStream_t stream);

// data[i] uniform in [0.9, 1.1), for norm weights.
Status launch_fill_dummy_norm(float* data, int64_t count, uint64_t seed, cudaStream_t stream);

// out (bf16, rows out_stride elements apart) = the values of `weight` as ops::weight_element
// defines them, rounded to nearest. Any format and alignment that the view allows.
Status launch_convert_weight(const tensor::WeightView& weight, void* out, int64_t out_stride,
                             cudaStream_t stream);

// out (float [rows * cols]) = the same values unrounded; for norm weights and biases.
Status launch_convert_weight_to_float(const tensor::WeightView& weight, float* out,
                                      cudaStream_t stream);

}  // namespace nanocp::cuda
