// A cluster of blocks takes some rows and experts and shares out the depth; its sums meet in shared
// memory. Rows are split into three bf16 parts, which together are the float32 values, so that
// tensor cores multiply them unrounded. The norm's factor is the same for all values of a row and
// is multiplied last. Weights do not depend on the kernel before: they are under way while it ends.
#include "backend/cuda/router.h"

#include <cooperative_groups.h>
#include <cuda_bf16.h>

#include <algorithm>

#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kCluster = 8;  // blocks that share the depth
constexpr int kStep = 16;    // values of the depth in a product
constexpr int kParts = 3;    // of a float32 value
constexpr int32_t kFewRows = 16;
constexpr int32_t kManyExperts = 256;
constexpr int64_t kSharedMax = 227 * 1024;
constexpr int32_t kHiddenMax = 12'288;

// Tiles of 16 rows and of 8 experts in a cluster.
template <int kRowTiles, int kExpertTiles>
struct Tile {
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kExperts = 8 * kExpertTiles;
  static constexpr int kDepthWarps = kWarps / kRowTiles;  // that share a block's depth
};

// Of a block's shared memory: the one list of what lies where. Strides keep the eight rows of a
// product apart in the banks.
struct SharedLayout {
  int32_t steps;     // of a block, at most
  int32_t x_stride;  // floats
  int32_t w_stride;  // bf16
  int64_t w_at, norm_at, sums_at, squares_at, totals_at, bytes;

  __host__ __device__ SharedLayout(int32_t hidden, int rows, int experts, int depth_warps) {
    steps = ((hidden + kStep - 1) / kStep + kCluster - 1) / kCluster;
    x_stride = steps * kStep + (steps % 2 == 0 ? 16 : 0);
    w_stride = steps * kStep + (5 - steps % 4) % 4 * kStep;
    w_at = int64_t{rows} * x_stride * 4;
    norm_at = w_at + int64_t{experts} * w_stride * 2;
    sums_at = norm_at + int64_t{steps} * kStep * 4;
    squares_at = sums_at + int64_t{depth_warps} * rows * experts * 4;
    totals_at = squares_at + int64_t{depth_warps} * rows * 4;
    bytes = totals_at + int64_t{rows} * (experts + 1) * 4;
  }
};

// A block's part of the problem.
template <typename TileType>
struct Part {
  float* x;          // [kRows, x_stride]
  __nv_bfloat16* w;  // [kExperts, w_stride]
  float* norm;       // [steps * kStep]
  float* sums;       // [kDepthWarps, kRows, kExperts]
  float* squares;    // [kDepthWarps, kRows]
  float* totals;     // [kRows, kExperts], then [kRows] squares
  int32_t x_stride, w_stride;
  int32_t begin, columns;  // of the depth
  int32_t steps;           // that have columns
  int32_t first_row, first_expert;
  int32_t num_rows, num_experts;  // here

  __device__ Part(const RouterArgs& args, uint8_t* memory, int32_t rows_of_step) {
    const SharedLayout layout(args.hidden, TileType::kRows, TileType::kExperts,
                              TileType::kDepthWarps);
    x = reinterpret_cast<float*>(memory);
    w = reinterpret_cast<__nv_bfloat16*>(memory + layout.w_at);
    norm = reinterpret_cast<float*>(memory + layout.norm_at);
    sums = reinterpret_cast<float*>(memory + layout.sums_at);
    squares = reinterpret_cast<float*>(memory + layout.squares_at);
    totals = reinterpret_cast<float*>(memory + layout.totals_at);
    x_stride = layout.x_stride;
    w_stride = layout.w_stride;
    begin = static_cast<int32_t>(blockIdx.x) * layout.steps * kStep;
    columns = min(max(args.hidden - begin, 0), layout.steps * kStep);
    steps = (columns + kStep - 1) / kStep;
    first_expert = static_cast<int32_t>(blockIdx.y) * TileType::kExperts;
    first_row = static_cast<int32_t>(blockIdx.z) * TileType::kRows;
    num_rows = min(TileType::kRows, rows_of_step - first_row);
    num_experts = min(TileType::kExperts, args.num_experts - first_expert);
  }
};

// Weights and the norm's, called by the first warp.
template <typename TileType>
__device__ void fetch_constants(const RouterArgs& args, const Part<TileType>& part,
                                uint32_t barrier, uint64_t policy) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const int32_t row_bytes = part.columns * 2;
  if (lane == 0) {
    const int32_t bytes = part.num_experts * row_bytes + part.columns * 4;
    arrive_expecting(barrier, static_cast<uint32_t>(bytes));
  }
  __syncwarp();
  if (part.columns == 0) return;
  const auto* weight = static_cast<const __nv_bfloat16*>(args.weight) + part.begin;
  for (int32_t e = lane; e < part.num_experts; e += 32) {
    copy_bulk(shared_address(part.w + e * part.w_stride),
              weight + static_cast<int64_t>(part.first_expert + e) * args.hidden,
              static_cast<uint32_t>(row_bytes), barrier, policy);
  }
  if (lane != 0) return;
  copy_bulk(shared_address(part.norm), args.norm_weight + part.begin,
            static_cast<uint32_t>(part.columns * 4), barrier, policy);
}

template <typename TileType>
__device__ void fetch_rows(const RouterArgs& args, const Part<TileType>& part, uint32_t barrier,
                           uint64_t policy) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const int32_t row_bytes = part.columns * 4;
  if (lane == 0) arrive_expecting(barrier, static_cast<uint32_t>(part.num_rows * row_bytes));
  __syncwarp();
  if (part.columns == 0) return;
  for (int32_t r = lane; r < part.num_rows; r += 32) {
    copy_bulk(shared_address(part.x + r * part.x_stride),
              args.residual + static_cast<int64_t>(part.first_row + r) * args.hidden + part.begin,
              static_cast<uint32_t>(row_bytes), barrier, policy);
  }
}

// Zeros behind the last columns where these end within a step.
template <typename TileType>
__device__ void fill_up(const Part<TileType>& part) {
  const int32_t missing = part.steps * kStep - part.columns;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < missing * TileType::kRows; i += kThreads) {
    const int32_t column = part.columns + i % missing;
    part.x[i / missing * part.x_stride + column] = 0.0F;
    if (i < missing) part.norm[column] = 0.0F;
  }
  for (auto i = static_cast<int32_t>(threadIdx.x); i < missing * TileType::kExperts;
       i += kThreads) {
    part.w[i / missing * part.w_stride + part.columns + i % missing] = __float2bfloat16(0.0F);
  }
}

// Two values as bf16 parts, the largest first.
__device__ void split(float low, float high, int at, uint32_t (&parts)[kParts][4]) {
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    const float2 back = __bfloat1622float2(pair);
    parts[p][at] = reinterpret_cast<const uint32_t&>(pair);
    low -= back.x;
    high -= back.y;
  }
}

// A warp's sums over its steps. The order of the depth within a step is that in which a lane's four
// values lie together, the same for rows and weights.
template <int kRowTiles, int kExpertTiles>
__device__ void multiply(const Part<Tile<kRowTiles, kExpertTiles>>& part) {
  using TileType = Tile<kRowTiles, kExpertTiles>;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = warp % kRowTiles * 16 + lane / 4;
  const int depth_warp = warp / kRowTiles;
  float sums[kExpertTiles][4] = {};
  float squares[2] = {};
  for (int32_t step = depth_warp; step < part.steps; step += TileType::kDepthWarps) {
    const int32_t at = step * kStep + lane % 4 * 4;
    const float4 factor = *reinterpret_cast<const float4*>(part.norm + at);
    uint32_t x[kParts][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 v =
          *reinterpret_cast<const float4*>(part.x + (row + half * 8) * part.x_stride + at);
      squares[half] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      split(v.x * factor.x, v.y * factor.y, half, x);
      split(v.z * factor.z, v.w * factor.w, 2 + half, x);
    }
#pragma unroll
    for (int e = 0; e < kExpertTiles; ++e) {
      const uint2 w =
          *reinterpret_cast<const uint2*>(part.w + (e * 8 + lane / 4) * part.w_stride + at);
#pragma unroll
      for (int p = kParts - 1; p >= 0; --p) multiply_add(sums[e], x[p], w.x, w.y);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* out = part.sums + (depth_warp * TileType::kRows + row + half * 8) * TileType::kExperts;
#pragma unroll
    for (int e = 0; e < kExpertTiles; ++e) {
      *reinterpret_cast<float2*>(out + e * 8 + lane % 4 * 2) =
          make_float2(sums[e][half * 2], sums[e][half * 2 + 1]);
    }
    float square = squares[half];
    square += __shfl_xor_sync(0xffffffffU, square, 1);
    square += __shfl_xor_sync(0xffffffffU, square, 2);
    if (lane % 4 == 0) part.squares[depth_warp * TileType::kRows + row + half * 8] = square;
  }
}

// Sums of the block, from those of its warps.
template <typename TileType>
__device__ void add_up_warps(const Part<TileType>& part) {
  constexpr int kCount = TileType::kRows * TileType::kExperts;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < kCount + TileType::kRows; i += kThreads) {
    const float* from = i < kCount ? part.sums + i : part.squares + i - kCount;
    const int32_t stride = i < kCount ? kCount : TileType::kRows;
    float total = 0.0F;
#pragma unroll
    for (int w = 0; w < TileType::kDepthWarps; ++w) total += from[w * stride];
    part.totals[i] = total;
  }
}

// The cluster's logits, each block an equal share of them.
template <typename TileType>
__device__ void add_up_blocks(const RouterArgs& args, const Part<TileType>& part) {
  const auto cluster = cooperative_groups::this_cluster();
  constexpr int kCount = TileType::kRows * TileType::kExperts;
  constexpr int kShare = kCount / kCluster;
  static_assert(kCount % kCluster == 0 && kShare <= kThreads);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if (thread >= kShare) return;
  const int32_t i = static_cast<int32_t>(blockIdx.x) * kShare + thread;
  const int32_t row = i / TileType::kExperts;
  const int32_t expert = i % TileType::kExperts;
  float total = 0.0F;
  float square = 0.0F;
#pragma unroll
  for (int block = 0; block < kCluster; ++block) {
    const float* totals = cluster.map_shared_rank(part.totals, block);
    total += totals[i];
    square += totals[kCount + row];
  }
  if (row >= part.num_rows || expert >= part.num_experts) return;
  const float mean = square / static_cast<float>(args.hidden);
  args.logits[static_cast<int64_t>(part.first_row + row) * args.num_experts + part.first_expert +
              expert] = total * rsqrtf(mean + args.eps);
}

template <int kRowTiles, int kExpertTiles>
__global__ void __launch_bounds__(kThreads) __cluster_dims__(kCluster, 1, 1)
    router_kernel(const __grid_constant__ RouterArgs args) {
  using TileType = Tile<kRowTiles, kExpertTiles>;
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ uint64_t barriers[2];  // constants and rows have landed
  cudaTriggerProgrammaticLaunchCompletion();
  const Part<TileType> part(args, memory, args.header->num_rows);
  if (part.num_rows <= 0) {
    cudaGridDependencySynchronize();
    return;
  }
  const uint32_t constants = shared_address(barriers);
  const uint32_t rows = shared_address(barriers + 1);
  if (threadIdx.x == 0) {
    init_barrier(constants, 1);
    init_barrier(rows, 1);
    publish_barriers();
  }
  __syncthreads();
  const uint64_t policy = evict_normal_policy();
  if (threadIdx.x < 32) fetch_constants(args, part, constants, policy);
  fill_up(part);
  cudaGridDependencySynchronize();
  if (threadIdx.x < 32) fetch_rows(args, part, rows, policy);
  __syncthreads();
  wait_phase(constants, 0);
  wait_phase(rows, 0);
  multiply<kRowTiles, kExpertTiles>(part);
  __syncthreads();
  add_up_warps(part);
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  add_up_blocks(args, part);
  cluster.sync();  // others may still read what lies here
}

template <int kRowTiles, int kExpertTiles>
Status launch_tiles(const RouterArgs& args, cudaStream_t stream) {
  using TileType = Tile<kRowTiles, kExpertTiles>;
  const SharedLayout layout(args.hidden, TileType::kRows, TileType::kExperts,
                            TileType::kDepthWarps);
  const auto kernel = router_kernel<kRowTiles, kExpertTiles>;
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(layout.bytes)),
                  "shared memory of the router"));
  const dim3 grid(kCluster, static_cast<unsigned>(divide_up(args.num_experts, TileType::kExperts)),
                  static_cast<unsigned>(divide_up(args.rows, TileType::kRows)));
  return launch_overlapped(kernel, grid, kThreads, args, stream, "the router",
                           static_cast<size_t>(layout.bytes));
}

bool fits(int32_t hidden, int rows, int experts, int depth_warps) {
  return SharedLayout(hidden, rows, experts, depth_warps).bytes <= kSharedMax;
}

}  // namespace

Status launch_router(const RouterArgs& args, cudaStream_t stream) {
  if (args.hidden % 8 != 0 || args.hidden > kHiddenMax) {
    return unsupported("the router kernel covers hidden sizes that are multiples of 8 up to " +
                       std::to_string(kHiddenMax) + ", not " + std::to_string(args.hidden));
  }
  // Few rows: more blocks read the weights. Many: fewer blocks read each row.
  if (args.rows <= kFewRows || !fits(args.hidden, 32, 16, 4)) {
    return launch_tiles<1, 2>(args, stream);
  }
  if (args.num_experts < kManyExperts || !fits(args.hidden, 32, 32, 4)) {
    return launch_tiles<2, 2>(args, stream);
  }
  return launch_tiles<2, 4>(args, stream);
}

}  // namespace nanocp::cuda
