// Element-wise kernels without tuning: the upload of the weights takes longer than they do.
#include "backend/cuda/weight_ops.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/device/hash.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "base/random.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)
using tensor::WeightFormat;
using tensor::WeightView;

constexpr int32_t kThreads = 256;
constexpr int32_t kThreadColumns = 8;
constexpr int64_t kGridMax = 8448;  // blocks; the rest of the work comes by strides
constexpr int64_t kGridRowsMax = 65535;

__device__ int64_t first_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ int64_t index_stride() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

struct FillArgs {
  void* data;
  int64_t count;
  float low;
  float width;
  uint64_t seed;  // mixed
};

// Four values of 16 random bits each per hash.
__device__ void random_values(const FillArgs& args, int64_t group, float (&values)[4]) {
  const uint64_t bits =
      device::mix_bits(args.seed + (static_cast<uint64_t>(group) + 1) * kGoldenRatio);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto part = static_cast<float>((bits >> (16 * i)) & 0xffffU);
    values[i] = args.low + args.width * (part * 0x1.0p-16F);
  }
}

__device__ void store(__nv_bfloat16* at, float value) {
  // Towards zero, so that rounding does not reach the excluded upper end.
  *at = __float2bfloat16_rz(value);
}
__device__ void store(float* at, float value) {
  *at = value;
}

template <typename T>
__global__ void fill_kernel(const __grid_constant__ FillArgs args) {
  for (int64_t group = first_index(); group * 4 < args.count; group += index_stride()) {
    float values[4];
    random_values(args, group, values);
    for (int i = 0; i < 4; ++i) {
      if (group * 4 + i < args.count) store(static_cast<T*>(args.data) + group * 4 + i, values[i]);
    }
  }
}

__global__ void fill_bits_kernel(const __grid_constant__ FillBitsArgs args) {
  for (int64_t i = first_index(); i * 8 < args.size_bytes; i += index_stride()) {
    const uint64_t random =
        device::mix_bits(args.seed + (static_cast<uint64_t>(i) + 1) * kGoldenRatio);
    static_cast<uint64_t*>(args.data)[i] = (random & args.keep) | args.set;
  }
}

// e4m3fn: bias 7, no infinity; the NaN code 0x7f reads as 480.
__device__ float e4m3_value(uint32_t bits) {
  const auto exponent = static_cast<int>((bits >> 3) & 0xfU);
  const auto mantissa = static_cast<float>(bits & 0x7U);
  const float sign = (bits & 0x80U) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * ldexpf(mantissa, -9);
  return sign * ldexpf(mantissa + 8.0F, exponent - 10);
}

__device__ float e2m1_value(uint32_t code) {
  const uint32_t exponent = (code >> 1) & 3U;
  const uint32_t half = code & 1U;
  const float magnitude = exponent == 0 ? 0.5F * static_cast<float>(half)
                                        : static_cast<float>((2 + half) << (exponent - 1)) * 0.5F;
  return (code & 8U) != 0 ? -magnitude : magnitude;
}

template <typename T>
__device__ T read_at(const WeightView& w, int64_t row, int64_t col) {
  return reinterpret_cast<const T*>(static_cast<const uint8_t*>(w.data) +
                                    row * w.stride_bytes)[col];
}

template <WeightFormat kFormat>
__device__ float element(const WeightView& w, int64_t row, int64_t col) {
  if constexpr (kFormat == WeightFormat::kF32) {
    return read_at<float>(w, row, col);
  } else if constexpr (kFormat == WeightFormat::kF16) {
    return __half2float(read_at<__half>(w, row, col));
  } else if constexpr (kFormat == WeightFormat::kBf16) {
    return __bfloat162float(read_at<__nv_bfloat16>(w, row, col));
  } else if constexpr (kFormat == WeightFormat::kFp8Block) {
    const int64_t block_row = (row + w.scale_row_offset) / w.block_rows;
    const float scale = w.scales[block_row * w.scale_stride + col / w.block_cols];
    return e4m3_value(read_at<uint8_t>(w, row, col)) * scale;
  } else {
    const uint32_t pair = read_at<uint8_t>(w, row, col / 2);
    const uint32_t code = col % 2 == 0 ? pair & 0xfU : pair >> 4;
    const int32_t scale =
        w.group_scales[row * w.group_scale_stride + col / tensor::kMxfp4GroupSize];
    return ldexpf(e2m1_value(code), scale - 127);
  }
}

struct ConvertArgs {
  WeightView weight;
  void* out;
  int64_t out_stride;
  bool vectors;  // bf16 rows can be written 16 bytes at a time
};

// A thread takes eight adjacent columns.
template <WeightFormat kFormat>
__global__ void convert_kernel(const __grid_constant__ ConvertArgs args) {
  const WeightView& w = args.weight;
  const int64_t begin = first_index() * kThreadColumns;
  if (begin >= w.cols) return;
  const int64_t end = min(begin + kThreadColumns, w.cols);
  for (int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    auto* out = static_cast<__nv_bfloat16*>(args.out) + row * args.out_stride;
    if (args.vectors && end - begin == kThreadColumns) {
      __align__(16) __nv_bfloat16 values[kThreadColumns];
#pragma unroll
      for (int i = 0; i < kThreadColumns; ++i) {
        values[i] = __float2bfloat16(element<kFormat>(w, row, begin + i));
      }
      *reinterpret_cast<uint4*>(out + begin) = *reinterpret_cast<const uint4*>(values);
    } else {
      for (int64_t c = begin; c < end; ++c) out[c] = __float2bfloat16(element<kFormat>(w, row, c));
    }
  }
}

template <WeightFormat kFormat>
__global__ void convert_to_float_kernel(const __grid_constant__ ConvertArgs args) {
  const WeightView& w = args.weight;
  const int64_t count = w.rows * w.cols;
  for (int64_t i = first_index(); i < count; i += index_stride()) {
    static_cast<float*>(args.out)[i] = element<kFormat>(w, i / w.cols, i % w.cols);
  }
}

Status check_weight(const WeightView& weight) {
  if (weight.rows < 1 || weight.cols < 1 || weight.data == nullptr) {
    return invalid_argument("conversion of an empty weight");
  }
  if (weight.format == WeightFormat::kFp8Block && weight.scales == nullptr) {
    return invalid_argument("conversion of an fp8 weight without scales");
  }
  if (weight.format == WeightFormat::kMxfp4 && weight.group_scales == nullptr) {
    return invalid_argument("conversion of an mxfp4 weight without scales");
  }
  return ok_status();
}

unsigned grid_for(int64_t threads) {
  return static_cast<unsigned>(std::min<int64_t>(kGridMax, (threads + kThreads - 1) / kThreads));
}

// Calls `launch` with the format as a constant.
template <typename Launch>
Status launch_for_format(WeightFormat format, Launch launch) {
  switch (format) {
    case WeightFormat::kF32:
      launch.template operator()<WeightFormat::kF32>();
      break;
    case WeightFormat::kF16:
      launch.template operator()<WeightFormat::kF16>();
      break;
    case WeightFormat::kBf16:
      launch.template operator()<WeightFormat::kBf16>();
      break;
    case WeightFormat::kFp8Block:
      launch.template operator()<WeightFormat::kFp8Block>();
      break;
    case WeightFormat::kMxfp4:
      launch.template operator()<WeightFormat::kMxfp4>();
      break;
  }
  return cuda_status(cudaGetLastError(), "launch of a weight conversion");
}

}  // namespace

Status launch_fill_dummy(void* data, int64_t count, float amplitude, uint64_t seed,
                         cudaStream_t stream) {
  if (count < 1) return ok_status();
  const FillArgs args = {data, count, -amplitude, 2.0F * amplitude, nanocp::mix_bits(seed)};
  fill_kernel<__nv_bfloat16><<<grid_for((count + 3) / 4), kThreads, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "launch of a random fill");
}

Status launch_fill_bits(const FillBitsArgs& args, cudaStream_t stream) {
  if (args.size_bytes < 1) return ok_status();
  FillBitsArgs mixed = args;
  mixed.seed = nanocp::mix_bits(args.seed);
  fill_bits_kernel<<<grid_for((args.size_bytes + 7) / 8), kThreads, 0, stream>>>(mixed);
  return cuda_status(cudaGetLastError(), "launch of a random fill");
}

Status launch_fill_dummy_norm(float* data, int64_t count, uint64_t seed, cudaStream_t stream) {
  if (count < 1) return ok_status();
  const FillArgs args = {data, count, 0.9F, 0.2F, nanocp::mix_bits(seed)};
  fill_kernel<float><<<grid_for((count + 3) / 4), kThreads, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "launch of a random fill");
}

Status launch_convert_weight(const WeightView& weight, void* out, int64_t out_stride,
                             cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_weight(weight));
  if (out_stride < weight.cols) return invalid_argument("converted rows overlap");
  const bool vectors =
      out_stride % kThreadColumns == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  const ConvertArgs args = {weight, out, out_stride, vectors};
  const int64_t columns = (weight.cols + kThreadColumns - 1) / kThreadColumns;
  const dim3 grid(static_cast<unsigned>(divide_up(columns, kThreads)),
                  static_cast<unsigned>(std::min(weight.rows, kGridRowsMax)));
  return launch_for_format(weight.format, [&]<WeightFormat kFormat>() {
    convert_kernel<kFormat><<<grid, kThreads, 0, stream>>>(args);
  });
}

Status launch_convert_weight_to_float(const WeightView& weight, float* out, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_weight(weight));
  const ConvertArgs args = {weight, out, weight.cols, false};
  const unsigned grid = grid_for(weight.rows * weight.cols);
  return launch_for_format(weight.format, [&]<WeightFormat kFormat>() {
    convert_to_float_kernel<kFormat><<<grid, kThreads, 0, stream>>>(args);
  });
}

}  // namespace nanocp::cuda
