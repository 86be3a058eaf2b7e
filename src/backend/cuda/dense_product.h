// Dense matrix products of one GPU through cuBLASLt: y = x W^T with bf16 inputs and float32
// accumulation. Owned by one instance; its thread, with its device current. Calls enqueue on the
// given stream and may be captured; the algorithm for a shape is chosen at its first use and kept,
// so that eager runs and captured graphs give the same bits.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "base/result.h"

namespace nanocp::cuda {

// out[b][r, c] = sum_k x[b][r, k] w[b][c, k] for b in [0, num_batches).
struct DenseProduct {
  const void* x = nullptr;  // bf16, rows x_stride elements apart
  const void* w = nullptr;  // bf16 [cols, depth], contiguous
  void* out = nullptr;      // bf16 or float, rows out_stride elements apart
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t depth = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  bool float_out = false;
  int32_t num_batches = 1;
  int64_t x_batch_stride = 0;  // elements
  int64_t w_batch_stride = 0;
  int64_t out_batch_stride = 0;
};

class DenseProducts {
 public:
  static Result<std::unique_ptr<DenseProducts>> create();
  ~DenseProducts();
  DenseProducts(const DenseProducts&) = delete;
  DenseProducts& operator=(const DenseProducts&) = delete;

  Status launch(const DenseProduct& product, cudaStream_t stream);

  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

 private:
  struct Plan;
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, bool, int32_t, int64_t,
                         int64_t, int64_t>;
  DenseProducts() = default;
  Result<Plan*> plan_for(const DenseProduct& product);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace nanocp::cuda
