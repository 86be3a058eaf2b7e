#include "backend/cuda/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <string>

#include "backend/cuda/cuda_status.h"

namespace nanocp::cuda {
namespace {

struct Encoder {
  PFN_cuTensorMapEncodeTiled_v12000 encode;
};

// Asked of the runtime, so that the program needs no link to the driver's library.
Result<Encoder> find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                   cudaEnableDefault, &found),
                  "looking for cuTensorMapEncodeTiled"));
  if (found != cudaDriverEntryPointSuccess) {
    return unsupported("the CUDA driver has no cuTensorMapEncodeTiled: it is older than 12.0");
  }
  return Encoder{reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function)};
}

}  // namespace

Status make_swizzled_map(const Bf16Matrix& matrix, int32_t box_rows, CUtensorMap* map) {
  static const Result<Encoder> encoder = find_encoder();
  if (!encoder.ok()) return encoder.error();
  constexpr cuuint32_t kBoxCols = 64;  // 128 bytes
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.cols),
                               static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.cols) * 2};
  const cuuint32_t box[2] = {kBoxCols, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult code = encoder->encode(
      map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix.data), sizes, strides, box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    return invalid_argument("no tensor map of " + std::to_string(matrix.rows) + " x " +
                            std::to_string(matrix.cols) + " values in boxes of " +
                            std::to_string(box_rows) + " rows: driver error " +
                            std::to_string(static_cast<int>(code)));
  }
  return ok_status();
}

}  // namespace nanocp::cuda
