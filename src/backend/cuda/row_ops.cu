// A block per row and a thread per eight values of it: the row stays in registers between the sum
// of squares and the scaling, with one barrier between them.
#include "backend/cuda/row_ops.h"

#include "backend/cuda/device/row_vector.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int32_t kActivationThreads = 256;
constexpr float kClampLimit = 7.0F;  // gpt-oss, as in ops/activation.cc
constexpr float kClampAlpha = 1.702F;

// Where this thread's eight values are in a row; the last warp may reach beyond the row's end.
struct Place {
  int32_t column;
  bool inside;
};
__device__ Place place_in_row(int32_t hidden) {
  const auto column = static_cast<int32_t>(threadIdx.x) * kVectorValues;
  return {column, column < hidden};
}

__device__ float norm_factor(const Vector8& x, int32_t hidden, float eps) {
  __shared__ float sums[32];
  return rsqrtf(block_sum(sum_of_squares(x), sums) / static_cast<float>(hidden) + eps);
}

__global__ void embed_norm_kernel(const __grid_constant__ EmbedNormArgs args) {
  const Place place = place_in_row(args.hidden);
  const auto row = static_cast<int32_t>(blockIdx.x);
  Vector8 weight = {};
  if (place.inside) weight = load_constant(args.norm_weight, place.column);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (row >= args.header->num_rows) return;
  int32_t id = args.token_ids[row];
  if (id < 0 && args.sampled != nullptr) id = args.sampled[-1 - id];
  const int64_t token = min(max(id, 0), args.vocab_size - 1);
  Vector8 x = {};
  if (place.inside) x = load_bf16(args.embedding, token * args.hidden + place.column);
  const float factor = norm_factor(x, args.hidden, args.eps);
  if (!place.inside) return;
  store_float(args.residual, static_cast<int64_t>(row) * args.hidden + place.column, x);
  scale(x, factor, weight);
  store_bf16(args.x, row * args.x_stride + place.column, x);
}

__global__ void add_norm_kernel(const __grid_constant__ AddNormArgs args) {
  const Place place = place_in_row(args.hidden);
  const auto row = static_cast<int32_t>(blockIdx.x);
  const int64_t at = static_cast<int64_t>(row) * args.hidden + place.column;
  Vector8 weight = {};
  Vector8 bias = {};
  if (place.inside) {
    if (args.x != nullptr) weight = load_constant(args.norm_weight, place.column);
    if (args.bias != nullptr) bias = load_constant(args.bias, place.column);
  }
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t num_rows = args.header->num_rows;
  Vector8 x = {};
  if (place.inside) {  // before the count is known: padding rows have memory
    x = load_float(args.residual, at);
    if (args.delta != nullptr)
      add(x, load_bf16(args.delta, row * args.delta_stride + place.column));
    if (args.bias != nullptr) add(x, bias);
  }
  if (row >= num_rows) return;
  if (place.inside) store_float(args.residual, at, x);
  if (args.x == nullptr) return;
  const float factor = norm_factor(x, args.hidden, args.eps);
  if (!place.inside) return;
  scale(x, factor, weight);
  store_bf16(args.x, row * args.x_stride + place.column, x);
}

__global__ void gather_norm_kernel(const __grid_constant__ GatherNormArgs args) {
  const Place place = place_in_row(args.hidden);
  const auto sample = static_cast<int32_t>(blockIdx.x);
  Vector8 weight = {};
  if (place.inside) weight = load_constant(args.norm_weight, place.column);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (sample >= args.header->num_samples) return;
  const int64_t row = args.sample_rows[sample];
  Vector8 x = {};
  if (place.inside) x = load_float(args.residual, row * args.hidden + place.column);
  const float factor = norm_factor(x, args.hidden, args.eps);
  if (!place.inside) return;
  scale(x, factor, weight);
  store_bf16(args.out, static_cast<int64_t>(sample) * args.hidden + place.column, x);
}

__device__ float sigmoid(float x) {
  return 1.0F / (1.0F + __expf(-x));
}

template <ops::Activation kActivation>
__device__ float activate(float gate, float up) {
  if (kActivation == ops::Activation::kSwiglu) return gate * sigmoid(gate) * up;
  gate = fminf(gate, kClampLimit);
  up = fminf(fmaxf(up, -kClampLimit), kClampLimit);
  return (up + 1.0F) * gate * sigmoid(kClampAlpha * gate);
}

template <ops::Activation kActivation>
__global__ void gated_activation_kernel(const __grid_constant__ GatedActivationArgs args) {
  const int32_t column =
      static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x) * kVectorValues;
  const auto row = static_cast<int32_t>(blockIdx.y);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t num_rows = args.header->num_rows;
  if (column >= args.intermediate) return;
  const int64_t at = row * args.gate_up_stride + column;
  Vector8 gate = load_bf16(args.gate_up, at);
  Vector8 up = load_bf16(args.gate_up, at + args.intermediate);
  if (row >= num_rows) return;
  if (args.bias != nullptr) {
    add(gate, load_constant(args.bias, column));
    add(up, load_constant(args.bias, args.intermediate + column));
  }
#pragma unroll
  for (int i = 0; i < kVectorValues; ++i) gate.v[i] = activate<kActivation>(gate.v[i], up.v[i]);
  store_bf16(args.out, row * args.out_stride + column, gate);
}

Status check_rows(int32_t hidden, int32_t rows, const char* what) {
  if (rows < 1) return invalid_argument(std::string(what) + " needs at least one row");
  if (hidden >= 8 && hidden <= kNormHiddenMax && hidden % kVectorValues == 0) return ok_status();
  return unsupported(std::string(what) + " covers rows of up to " + std::to_string(kNormHiddenMax) +
                     " values, a multiple of 8, not " + std::to_string(hidden));
}

Status check_stride(int64_t stride, int64_t width, const char* what) {
  if (stride >= width && stride % kVectorValues == 0) return ok_status();
  return invalid_argument(std::string(what) + ": a row stride of " + std::to_string(stride) +
                          " for " + std::to_string(width) + " values; a multiple of 8 is needed");
}

}  // namespace

Status launch_embed_norm(const EmbedNormArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_rows(args.hidden, args.rows, "embedding"));
  NANOCP_RETURN_IF_ERROR(check_stride(args.x_stride, args.hidden, "embedding"));
  return launch_overlapped(embed_norm_kernel, dim3(static_cast<unsigned>(args.rows)),
                           threads_of_row(args.hidden), args, stream, "embedding and norm");
}

Status launch_add_norm(const AddNormArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_rows(args.hidden, args.rows, "norm"));
  if (args.x != nullptr) {
    NANOCP_RETURN_IF_ERROR(check_stride(args.x_stride, args.hidden, "norm"));
  }
  if (args.delta != nullptr) {
    NANOCP_RETURN_IF_ERROR(check_stride(args.delta_stride, args.hidden, "residual sum"));
  }
  return launch_overlapped(add_norm_kernel, dim3(static_cast<unsigned>(args.rows)),
                           threads_of_row(args.hidden), args, stream, "residual sum and norm");
}

Status launch_gather_norm(const GatherNormArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_rows(args.hidden, args.num_samples, "final norm"));
  return launch_overlapped(gather_norm_kernel, dim3(static_cast<unsigned>(args.num_samples)),
                           threads_of_row(args.hidden), args, stream, "final norm");
}

Status launch_gated_activation(const GatedActivationArgs& args, cudaStream_t stream) {
  if (args.rows < 1 || args.rows > 65535 || args.intermediate < 8 ||
      args.intermediate % kVectorValues != 0) {
    return unsupported("gated activation covers 1 to 65535 rows of a multiple of 8 values, not " +
                       std::to_string(args.rows) + " of " + std::to_string(args.intermediate));
  }
  NANOCP_RETURN_IF_ERROR(
      check_stride(args.gate_up_stride, 2 * int64_t{args.intermediate}, "gated activation"));
  NANOCP_RETURN_IF_ERROR(check_stride(args.out_stride, args.intermediate, "gated activation"));
  const int32_t threads = std::min(kActivationThreads, threads_of_row(args.intermediate));
  const int32_t per_row = divide_up(args.intermediate, int64_t{threads} * kVectorValues);
  const dim3 grid(static_cast<unsigned>(per_row), static_cast<unsigned>(args.rows));
  const auto kernel = args.activation == ops::Activation::kSwiglu
                          ? gated_activation_kernel<ops::Activation::kSwiglu>
                          : gated_activation_kernel<ops::Activation::kClampedSwiglu>;
  return launch_overlapped(kernel, grid, threads, args, stream, "gated activation");
}

}  // namespace nanocp::cuda
