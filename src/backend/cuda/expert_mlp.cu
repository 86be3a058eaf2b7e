#include "backend/cuda/expert_mlp.h"

#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/expert_mlp_kernels.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kPackThreads = 256;
constexpr int64_t kSharedMax = 227 * 1024;
constexpr int64_t kSumBytes = int64_t{2} * kPieces * kMlpWarps * 32 * 16;

struct PackParams {
  const __nv_bfloat16* first;   // [rows, depth]
  const __nv_bfloat16* second;  // alternates with `first` in groups of 8 rows; or null
  uint4* packed;                // [row tiles][depth tiles][32]
  int32_t row_tiles;
  int32_t depth_tiles;
};

// A thread makes the 16 bytes of one lane of one tile: the registers of the first operand of an
// m16n8k16 product.
__global__ void pack_kernel(const __grid_constant__ PackParams p) {
  const int64_t total = static_cast<int64_t>(p.row_tiles) * p.depth_tiles * kTileLanes;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  if (i >= total) return;
  const auto lane = static_cast<int32_t>(i % 32);
  const auto depth_tile = static_cast<int32_t>(i / 32 % p.depth_tiles);
  const auto row_tile = static_cast<int32_t>(i / 32 / p.depth_tiles);
  const int64_t depth = p.depth_tiles * 16;
  uint32_t words[4];
  for (int part = 0; part < 4; ++part) {
    const int32_t half = part % 2;  // rows 0-7 or 8-15
    const int32_t in_half = lane / 4;
    const int32_t col = depth_tile * 16 + part / 2 * 8 + lane % 4 * 2;
    const __nv_bfloat16* matrix = p.first;
    int64_t row = row_tile * 16 + half * 8 + in_half;
    if (p.second != nullptr) {
      matrix = half == 0 ? p.first : p.second;
      row = row_tile * 8 + in_half;
    }
    words[part] = *reinterpret_cast<const uint32_t*>(matrix + row * depth + col);
  }
  p.packed[i] = make_uint4(words[0], words[1], words[2], words[3]);
}

Status launch_pack(const PackParams& params, cudaStream_t stream) {
  const int64_t total = int64_t{params.row_tiles} * params.depth_tiles * kTileLanes;
  pack_kernel<<<static_cast<unsigned>((total + kPackThreads - 1) / kPackThreads), kPackThreads, 0,
                stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of expert packing");
}

Status check_shape(const ExpertShape& shape) {
  if (shape.hidden > 0 && shape.hidden % 16 == 0 && shape.intermediate > 0 &&
      shape.intermediate % 16 == 0 && expert_tile_rows(shape) >= 8) {
    return ok_status();
  }
  return unsupported(
      "the expert kernels need hidden and intermediate sizes that are multiples of "
      "16 and at most 12,000, not " +
      std::to_string(shape.hidden) + " and " + std::to_string(shape.intermediate));
}

int64_t matrix_values(const ExpertShape& shape) {
  return int64_t{shape.hidden} * shape.intermediate;
}

int64_t align(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// One list gives offsets and total.
int64_t lay_out(const ExpertShape& shape, uint8_t* base, ExpertWeights* weights) {
  int64_t offset = 0;
  const auto take = [&](int64_t bytes) {
    uint8_t* at = base == nullptr ? nullptr : base + offset;
    offset += align(bytes * shape.num_experts);
    return at;
  };
  weights->shape = shape;
  weights->gate_up = take(matrix_values(shape) * 2 * 2);
  weights->down = take(matrix_values(shape) * 2);
  if (shape.has_bias) {
    weights->gate_up_bias = reinterpret_cast<const float*>(take(int64_t{shape.intermediate} * 8));
    weights->down_bias = reinterpret_cast<const float*>(take(int64_t{shape.hidden} * 4));
  }
  return offset;
}

// As many warps share the depth as have some tiles each, so that items are small and even.
int32_t choose_k_warps(int32_t depth_tiles) {
  int32_t k_warps = kMlpWarps;
  while (k_warps > 1 && depth_tiles < k_warps * 5) k_warps /= 2;
  return k_warps;
}

template <Half kHalf>
Status launch_product(ProductParams params, const ExpertShape& shape, cudaStream_t stream) {
  params.k_warps = choose_k_warps(params.depth_tiles);
  params.steps = (params.depth_tiles + params.k_warps - 1) / params.k_warps;
  int device = 0;
  int num_sms = 0;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaGetDevice(&device), "cudaGetDevice"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device),
                  "cudaDeviceGetAttribute"));
  const int64_t row_bytes = (int64_t{params.depth_tiles} * 16 + kRowPad) * 2;
  // The last loads of a row may run past it by one depth tile.
  const int64_t shared_bytes = kSumBytes + expert_tile_rows(shape) * row_bytes + 64;
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaFuncSetAttribute(product_kernel<kHalf>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared_bytes)),
      "shared memory of the expert product"));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(num_sms));
  config.blockDim = dim3(kMlpThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cuda_status(cudaLaunchKernelEx(&config, product_kernel<kHalf>, params),
                     "launch of an expert product");
}

}  // namespace

int64_t expert_weight_bytes(const ExpertShape& shape) {
  ExpertWeights weights;
  return lay_out(shape, nullptr, &weights);
}

ExpertWeights expert_weights_at(const ExpertShape& shape, void* packed) {
  ExpertWeights weights;
  lay_out(shape, static_cast<uint8_t*>(packed), &weights);
  return weights;
}

int32_t expert_tile_rows(const ExpertShape& shape) {
  const int64_t row_bytes = (int64_t{std::max(shape.hidden, shape.intermediate)} + kRowPad) * 2;
  const int64_t rows = (kSharedMax - kSumBytes - 64) / row_bytes / 8 * 8;
  return static_cast<int32_t>(std::min<int64_t>(rows, kPieces * 8));
}

Status launch_pack_expert(const PackExpertArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_shape(args.shape));
  ExpertWeights weights = expert_weights_at(args.shape, args.packed);
  const int64_t values = matrix_values(args.shape) * args.expert;
  auto* gate_up = static_cast<uint8_t*>(const_cast<void*>(weights.gate_up)) + values * 4;
  auto* down = static_cast<uint8_t*>(const_cast<void*>(weights.down)) + values * 2;
  NANOCP_RETURN_IF_ERROR(launch_pack({.first = static_cast<const __nv_bfloat16*>(args.gate),
                                      .second = static_cast<const __nv_bfloat16*>(args.up),
                                      .packed = reinterpret_cast<uint4*>(gate_up),
                                      .row_tiles = args.shape.intermediate / 8,
                                      .depth_tiles = args.shape.hidden / 16},
                                     stream));
  return launch_pack({.first = static_cast<const __nv_bfloat16*>(args.down),
                      .second = nullptr,
                      .packed = reinterpret_cast<uint4*>(down),
                      .row_tiles = args.shape.hidden / 16,
                      .depth_tiles = args.shape.intermediate / 16},
                     stream);
}

Status launch_expert_mlp(const ExpertMlpArgs& args, cudaStream_t stream) {
  const ExpertShape& shape = args.weights.shape;
  if (shape.num_experts == 0) return ok_status();
  NANOCP_RETURN_IF_ERROR(check_shape(shape));
  ProductParams params = {};
  params.lists = args.lists;
  params.weights = static_cast<const uint4*>(args.weights.gate_up);
  params.bias = args.weights.gate_up_bias;
  params.in = static_cast<const __nv_bfloat16*>(args.x);
  params.out = static_cast<__nv_bfloat16*>(args.h);
  params.row_tiles = shape.intermediate / 8;
  params.depth_tiles = shape.hidden / 16;
  params.out_values = shape.intermediate;
  params.by_row_id = true;
  params.clamped = args.activation == ops::Activation::kClampedSwiglu;
  NANOCP_RETURN_IF_ERROR(launch_product<Half::kGateUp>(params, shape, stream));
  params.weights = static_cast<const uint4*>(args.weights.down);
  params.bias = args.weights.down_bias;
  params.in = static_cast<const __nv_bfloat16*>(args.h);
  params.out = static_cast<__nv_bfloat16*>(args.y);
  params.row_tiles = shape.hidden / 16;
  params.depth_tiles = shape.intermediate / 16;
  params.out_values = shape.hidden;
  params.by_row_id = false;
  return launch_product<Half::kDown>(params, shape, stream);
}

}  // namespace nanocp::cuda
