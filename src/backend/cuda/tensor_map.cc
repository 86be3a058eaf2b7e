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

}  // namespace

Status make_tensor_map(const TensorMapShape& shape, CUtensorMap* map) {
  static Encode encode = nullptr;
  static const Status found = find_encode(&encode);
  if (!found.ok()) return found.error();
  const bool is_bf16 = shape.value_bytes == 2;
  const auto value_bytes = static_cast<cuuint64_t>(shape.value_bytes);
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(shape.columns),
                               static_cast<cuuint64_t>(shape.rows),
                               static_cast<cuuint64_t>(shape.matrices)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(shape.row_stride) * value_bytes,
                                 static_cast<cuuint64_t>(shape.matrix_stride) * value_bytes};
  const cuuint32_t box[3] = {is_bf16 ? 64U : 128U, static_cast<cuuint32_t>(shape.box_rows), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult code =
      encode(map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 3,
             const_cast<void*>(shape.base), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    return Error{ErrorCode::kInternal, "cuTensorMapEncodeTiled refuses a tensor of " +
                                           std::to_string(shape.rows) + " rows of " +
                                           std::to_string(shape.columns) + " values: code " +
                                           std::to_string(code)};
  }
  return ok_status();
}

}  // namespace nanocp::cuda
