#include "backend/cuda/expert_mlp.h"

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/expert_mlp_kernels.cuh"
#include "backend/cuda/expert_pack_kernels.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

constexpr int64_t kSharedMax = 227 * 1024;
// What the ring has at least: three microseconds of an SM's share of the read bandwidth.
constexpr int64_t kRingMin = 72 * 1024;
constexpr int64_t kRingMax = 144 * 1024;
constexpr int64_t kAlignment = 128;

Status launch_pack(const PackParams& params, cudaStream_t stream) {
  const int64_t threads = int64_t{params.row_tiles} * params.depth_pairs * 32;
  pack_kernel<<<static_cast<unsigned>((threads + kPackThreads - 1) / kPackThreads), kPackThreads, 0,
                stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of expert packing");
}

Status check_view(const ExpertShape& shape, const tensor::WeightView& view, int32_t rows,
                  int32_t cols) {
  if (view.format != shape.format || view.rows != rows || view.cols != cols) {
    return invalid_argument("an expert's matrix is " + std::to_string(view.rows) + " x " +
                            std::to_string(view.cols) + " in " + to_string(view.format) + ", not " +
                            std::to_string(rows) + " x " + std::to_string(cols) + " in " +
                            to_string(shape.format));
  }
  if (view.format == WeightFormat::kFp8Block &&
      (view.block_rows % 8 != 0 || view.scale_row_offset % 8 != 0 || view.block_cols % 32 != 0)) {
    return unsupported(
        "the expert kernels need fp8 blocks of multiples of 8 rows and 32 columns, "
        "not " +
        std::to_string(view.block_rows) + " x " + std::to_string(view.block_cols));
  }
  return ok_status();
}

tensor::WeightView bf16_view(const void* data, int32_t rows, int32_t cols) {
  tensor::WeightView view;
  view.format = WeightFormat::kBf16;
  view.data = data;
  view.rows = rows;
  view.cols = cols;
  view.stride_bytes = int64_t{cols} * 2;
  return view;
}

Status check_shape(const ExpertShape& shape) {
  if (shape.format != WeightFormat::kBf16 && shape.format != WeightFormat::kFp8Block &&
      shape.format != WeightFormat::kMxfp4) {
    return unsupported(std::string("the expert kernels cover bf16, fp8 and mxfp4, not ") +
                       to_string(shape.format));
  }
  if (shape.hidden > 0 && shape.hidden % 32 == 0 && shape.intermediate > 0 &&
      shape.intermediate % 32 == 0 && expert_tile_rows(shape) >= 8) {
    return ok_status();
  }
  return unsupported(
      "the expert kernels need hidden and intermediate sizes that are multiples of "
      "32 and at most 9,000, not " +
      std::to_string(shape.hidden) + " and " + std::to_string(shape.intermediate));
}

// Of a hidden x intermediate matrix.
int64_t matrix_bytes(const ExpertShape& shape) {
  return int64_t{shape.hidden} * shape.intermediate / 512 * pair_bytes(shape.format);
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
  weights->gate_up = take(matrix_bytes(shape) * 2);
  weights->down = take(matrix_bytes(shape));
  if (shape.has_bias) {
    weights->gate_up_bias = reinterpret_cast<const float*>(take(int64_t{shape.intermediate} * 8));
    weights->down_bias = reinterpret_cast<const float*>(take(int64_t{shape.hidden} * 4));
  }
  return offset;
}

int64_t row_bytes(int64_t depth) {
  return (depth + kRowPad) * 2;
}

// Cuts the depth into even stages and shared memory into sums, rows and the ring; returns the
// bytes.
int64_t lay_out_shared(const ExpertShape& shape, ProductParams* params) {
  const int32_t pairs = params->weights.depth_pairs;
  const int32_t most = stage_pairs_max(shape.format);
  const int32_t steps = (pairs + most - 1) / most;
  params->stage_pairs = (pairs + steps - 1) / steps;
  const int64_t tile_rows = expert_tile_rows(shape);
  const int64_t rows_at = kBarrierBytes + tile_rows / 8 * kSumsOfPiece;
  const int64_t rows_end = rows_at + tile_rows * row_bytes(int64_t{pairs} * 32);
  const int64_t ring_at = (rows_end + kAlignment - 1) / kAlignment * kAlignment;
  const int64_t stage_bytes = int64_t{params->stage_pairs} * params->weights.pair_bytes;
  const int64_t ring_bytes = std::min(kSharedMax - ring_at, kRingMax);
  params->stages = static_cast<int32_t>(std::min<int64_t>(ring_bytes / stage_bytes, kStagesMax));
  params->rows_at = static_cast<int32_t>(rows_at);
  params->ring_at = static_cast<int32_t>(ring_at);
  return ring_at + params->stages * stage_bytes;
}

template <Half kHalf, WeightFormat kFormat>
Status launch_product_in(ProductParams params, const ExpertShape& shape, cudaStream_t stream) {
  const int64_t shared_bytes = lay_out_shared(shape, &params);
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(product_kernel<kHalf, kFormat>,
                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
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
  return cuda_status(cudaLaunchKernelEx(&config, product_kernel<kHalf, kFormat>, params),
                     "launch of an expert product");
}

template <Half kHalf>
Status launch_product(const ProductParams& params, const ExpertShape& shape, cudaStream_t stream) {
  switch (shape.format) {
    case WeightFormat::kFp8Block:
      return launch_product_in<kHalf, WeightFormat::kFp8Block>(params, shape, stream);
    case WeightFormat::kMxfp4:
      return launch_product_in<kHalf, WeightFormat::kMxfp4>(params, shape, stream);
    default:
      return launch_product_in<kHalf, WeightFormat::kBf16>(params, shape, stream);
  }
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
  const int64_t bytes = row_bytes(std::max(shape.hidden, shape.intermediate));
  const int64_t rows =
      (kSharedMax - kBarrierBytes - kAlignment - kRingMin) / (bytes + kSumsOfPiece / 8) / 8 * 8;
  return static_cast<int32_t>(std::min<int64_t>(rows, kPieces * 8));
}

Status launch_pack_expert_views(const PackExpertViewsArgs& args, cudaStream_t stream) {
  const ExpertShape& shape = args.shape;
  NANOCP_RETURN_IF_ERROR(check_shape(shape));
  for (const tensor::WeightView& view : {args.gate, args.up}) {
    NANOCP_RETURN_IF_ERROR(check_view(shape, view, shape.intermediate, shape.hidden));
  }
  NANOCP_RETURN_IF_ERROR(check_view(shape, args.down, shape.hidden, shape.intermediate));
  const ExpertWeights weights = expert_weights_at(shape, args.packed);
  const int64_t offset = matrix_bytes(shape) * args.expert;
  PackParams params = {};
  params.first = args.gate;
  params.second = args.up;
  params.alternates = true;
  params.packed = static_cast<uint8_t*>(const_cast<void*>(weights.gate_up)) + offset * 2;
  params.row_tiles = shape.intermediate / 8;
  params.depth_pairs = shape.hidden / 32;
  NANOCP_RETURN_IF_ERROR(launch_pack(params, stream));
  params.first = args.down;
  params.alternates = false;
  params.packed = static_cast<uint8_t*>(const_cast<void*>(weights.down)) + offset;
  params.row_tiles = shape.hidden / 16;
  params.depth_pairs = shape.intermediate / 32;
  return launch_pack(params, stream);
}

Status launch_pack_expert(const PackExpertArgs& args, cudaStream_t stream) {
  const ExpertShape& shape = args.shape;
  PackExpertViewsArgs views;
  views.shape = shape;
  views.gate = bf16_view(args.gate, shape.intermediate, shape.hidden);
  views.up = bf16_view(args.up, shape.intermediate, shape.hidden);
  views.down = bf16_view(args.down, shape.hidden, shape.intermediate);
  views.packed = args.packed;
  views.expert = args.expert;
  return launch_pack_expert_views(views, stream);
}

Status launch_expert_mlp(const ExpertMlpArgs& args, cudaStream_t stream) {
  const ExpertShape& shape = args.weights.shape;
  if (shape.num_experts == 0) return ok_status();
  NANOCP_RETURN_IF_ERROR(check_shape(shape));
  ProductParams params = {};
  params.lists = args.lists;
  const MatrixParams gate_up = {static_cast<const uint8_t*>(args.weights.gate_up),
                                shape.intermediate / 8, shape.hidden / 32,
                                pair_bytes(shape.format)};
  const MatrixParams down = {static_cast<const uint8_t*>(args.weights.down), shape.hidden / 16,
                             shape.intermediate / 32, pair_bytes(shape.format)};
  params.weights = gate_up;
  params.bias = args.weights.gate_up_bias;
  params.in = static_cast<const __nv_bfloat16*>(args.x);
  params.out = static_cast<__nv_bfloat16*>(args.h);
  params.out_values = shape.intermediate;
  params.by_row_id = true;
  params.clamped = args.activation == ops::Activation::kClampedSwiglu;
  NANOCP_RETURN_IF_ERROR(launch_product<Half::kGateUp>(params, shape, stream));
  params.weights = down;
  params.bias = args.weights.down_bias;
  params.in = static_cast<const __nv_bfloat16*>(args.h);
  params.out = static_cast<__nv_bfloat16*>(args.y);
  params.out_values = shape.hidden;
  params.by_row_id = false;
  return launch_product<Half::kDown>(params, shape, stream);
}

}  // namespace nanocp::cuda
