// A block takes 4 rows and 16 experts, two a warp. The rows lie in shared memory as a whole; the
// norm's factor is the same for all values of a row and is multiplied last. Weights do not depend on
// the kernel before, so the first are under way while it ends.
#include "backend/cuda/router.h"

#include <cuda_bf16.h>

#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 4;
constexpr int kRowWarps = kWarps / kRows;  // that bring a row
constexpr int kWarpExperts = 2;
constexpr int kExperts = kWarps * kWarpExperts;
constexpr int kStep = 128;  // values of a row that a warp multiplies at once
constexpr int kStepsAhead = 16;  // whose weights are loaded before the rows are there
constexpr int kHiddenMax = 12'288;
constexpr uint32_t kAllLanes = 0xffffffffU;

__device__ float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// Brings the tile's rows, times the norm's weights, and the parts of their sums of squares.
__device__ void fetch_rows(const RouterArgs& args, int32_t first_row, float4* rows,
                           float* squares) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp / kRowWarps;
  const int32_t count = args.hidden / 4;
  const bool exists = first_row + row < args.header->num_rows;
  const auto* residual = reinterpret_cast<const float4*>(
      args.residual + static_cast<int64_t>(first_row + row) * args.hidden);
  const auto* norm = reinterpret_cast<const float4*>(args.norm_weight);
  float sum = 0.0F;
#pragma unroll 8
  for (int32_t at = warp % kRowWarps * 32 + lane; at < count; at += kRowWarps * 32) {
    float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    if (exists) {
      const float4 x = residual[at];
      const float4 w = norm[at];
      sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
      value = make_float4(x.x * w.x, x.y * w.y, x.z * w.z, x.w * w.w);
    }
    rows[row * count + at] = value;
  }
  sum = warp_sum(sum);
  if (lane == 0) squares[warp] = sum;
}

// A lane's weights of the warp's experts in one step; zeros beyond the end.
struct StepWeights {
  uint2 raw[kWarpExperts];

  __device__ void load(const RouterArgs& args, int32_t first_expert, int32_t at) {
    const auto* weight = static_cast<const __nv_bfloat16*>(args.weight);
#pragma unroll
    for (int e = 0; e < kWarpExperts; ++e) {
      raw[e] = make_uint2(0, 0);
      if (first_expert + e >= args.num_experts || at >= args.hidden) continue;
      raw[e] = *reinterpret_cast<const uint2*>(
          weight + static_cast<int64_t>(first_expert + e) * args.hidden + at);
    }
  }
  __device__ float4 of(int e) const {
    const float2 low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw[e].x));
    const float2 high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw[e].y));
    return make_float4(low.x, low.y, high.x, high.y);
  }
  // sums += products with the rows' values from `at` on.
  __device__ void multiply(const RouterArgs& args, const float4* rows, int32_t at,
                           float (&sums)[kWarpExperts][kRows]) const {
    if (at >= args.hidden) return;
    const float4 weights[kWarpExperts] = {of(0), of(1)};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = rows[r * (args.hidden / 4) + at / 4];
#pragma unroll
      for (int e = 0; e < kWarpExperts; ++e) {
        sums[e][r] +=
            x.x * weights[e].x + x.y * weights[e].y + x.z * weights[e].z + x.w * weights[e].w;
      }
    }
  }
};

__global__ void __launch_bounds__(kThreads) router_kernel(const __grid_constant__ RouterArgs args) {
  extern __shared__ float4 rows[];  // [kRows, hidden / 4]
  __shared__ float squares[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto first_row = static_cast<int32_t>(blockIdx.y) * kRows;
  const int32_t first_expert = static_cast<int32_t>(blockIdx.x) * kExperts + warp * kWarpExperts;
  StepWeights ahead[kStepsAhead];
#pragma unroll
  for (int i = 0; i < kStepsAhead; ++i) ahead[i].load(args, first_expert, i * kStep + lane * 4);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (first_row >= args.header->num_rows) return;
  fetch_rows(args, first_row, rows, squares);
  __syncthreads();
  float sums[kWarpExperts][kRows] = {};
#pragma unroll
  for (int i = 0; i < kStepsAhead; ++i) ahead[i].multiply(args, rows, i * kStep + lane * 4, sums);
#pragma unroll 4
  for (int32_t begin = kStepsAhead * kStep; begin < args.hidden; begin += kStep) {
    StepWeights weights;
    weights.load(args, first_expert, begin + lane * 4);
    weights.multiply(args, rows, begin + lane * 4, sums);
  }
#pragma unroll
  for (int e = 0; e < kWarpExperts; ++e) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = warp_sum(sums[e][r]);
      const int32_t row = first_row + r;
      if (lane != 0 || row >= args.header->num_rows || first_expert + e >= args.num_experts) {
        continue;
      }
      float square = 0.0F;
      for (int w = 0; w < kRowWarps; ++w) square += squares[r * kRowWarps + w];
      const float mean = square / static_cast<float>(args.hidden);
      args.logits[static_cast<int64_t>(row) * args.num_experts + first_expert + e] =
          sum * rsqrtf(mean + args.eps);
    }
  }
}

}  // namespace

Status launch_router(const RouterArgs& args, cudaStream_t stream) {
  if (args.hidden % 8 != 0 || args.hidden > kHiddenMax) {
    return unsupported("the router kernel covers hidden sizes that are multiples of 8 up to " +
                       std::to_string(kHiddenMax) + ", not " + std::to_string(args.hidden));
  }
  const size_t shared_bytes = sizeof(float) * kRows * static_cast<size_t>(args.hidden);
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(router_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shared_bytes)),
                  "shared memory of the router"));
  const dim3 grid(static_cast<unsigned>(divide_up(args.num_experts, kExperts)),
                  static_cast<unsigned>(divide_up(args.rows, kRows)));
  return launch_overlapped(router_kernel, grid, kThreads, args, stream, "the router", shared_bytes);
}

}  // namespace nanocp::cuda
