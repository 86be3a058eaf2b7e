#include "backend/cuda/tensor_map.h"

#include <cuda_runtime.h>

#include <string>

#include "backend/cuda/cuda_status.h"

namespace nanocp::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Found by the runtime, so that nothing links against the driver.
Status find_encode(Encode* encode) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                   cudaEnableDefault, &found),
                  "cudaGetDriverEntryPointByVersion"));
  if (found != cudaDriverEntryPointSuccess || entry == nullptr) {
    return unsupported("the driver has no cuTensorMapEncodeTiled; CUDA 12 or newer is needed");
  }
  *encode = reinterpret_cast<Encode>(entry);
  return ok_status();
}

// What the driver is asked for; sizes, strides (bytes, none for adjacent values) and box by
// dimension.
struct Encoding {
  CUtensorMapDataType type;
  cuuint32_t rank;
  cuuint64_t sizes[5];
  cuuint64_t strides[4];
  cuuint32_t box[5];
};

Status encode_tensor_map(const void* base, const Encoding& encoding, CUtensorMap* map) {
  static Encode encode = nullptr;
  static const Status found = find_encode(&encode);
  if (!found.ok()) return found.error();
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  const CUresult code = encode(
      map, encoding.type, encoding.rank, const_cast<void*>(base), encoding.sizes, encoding.strides,
      encoding.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code == CUDA_SUCCESS) return ok_status();
  return Error{ErrorCode::kInternal, "cuTensorMapEncodeTiled refuses a tensor of " +
                                         std::to_string(encoding.sizes[1]) + " rows of " +
                                         std::to_string(encoding.sizes[0]) + " values: code " +
                                         std::to_string(code)};
}

}  // namespace

Status make_tensor_map(const TensorMapShape& shape, CUtensorMap* map) {
  const bool is_bf16 = shape.value_bytes == 2;
  const auto value_bytes = static_cast<cuuint64_t>(shape.value_bytes);
  return encode_tensor_map(
      shape.base,
      {.type = is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8,
       .rank = 3,
       .sizes = {static_cast<cuuint64_t>(shape.columns), static_cast<cuuint64_t>(shape.rows),
                 static_cast<cuuint64_t>(shape.matrices)},
       .strides = {static_cast<cuuint64_t>(shape.row_stride) * value_bytes,
                   static_cast<cuuint64_t>(shape.matrix_stride) * value_bytes},
       .box = {is_bf16 ? 64U : 128U, static_cast<cuuint32_t>(shape.box_rows), 1}},
      map);
}

Status make_tensor_map(const TensorMapDimensions& dimensions, CUtensorMap* map) {
  Encoding encoding = {};
  encoding.type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  encoding.rank = 5;
  for (int i = 0; i < 5; ++i) {
    encoding.sizes[i] = static_cast<cuuint64_t>(dimensions.sizes[i]);
    encoding.box[i] = static_cast<cuuint32_t>(dimensions.box[i]);
    if (i > 0) encoding.strides[i - 1] = static_cast<cuuint64_t>(dimensions.strides[i - 1]) * 2;
  }
  return encode_tensor_map(dimensions.base, encoding, map);
}

}  // namespace nanocp::cuda
