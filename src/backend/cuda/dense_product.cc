#include "backend/cuda/dense_product.h"

#include <string>

#include "backend/cuda/cuda_status.h"

namespace nanocp::cuda {
namespace {

Status check(cublasStatus_t code, const char* call) {
  if (code == CUBLAS_STATUS_SUCCESS) return ok_status();
  return Error{ErrorCode::kInternal, std::string(call) + " failed: " + cublasLtGetStatusName(code)};
}

struct Layout {
  int64_t rows;  // column-major
  int64_t cols;
  int64_t leading;
  cudaDataType_t type;
  int32_t num_batches;
  int64_t batch_stride;
};

Result<cublasLtMatrixLayout_t> make_layout(const Layout& layout) {
  cublasLtMatrixLayout_t result = nullptr;
  NANOCP_RETURN_IF_ERROR(
      check(cublasLtMatrixLayoutCreate(&result, layout.type, static_cast<uint64_t>(layout.rows),
                                       static_cast<uint64_t>(layout.cols), layout.leading),
            "cublasLtMatrixLayoutCreate"));
  if (layout.num_batches > 1) {
    NANOCP_RETURN_IF_ERROR(
        check(cublasLtMatrixLayoutSetAttribute(result, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                               &layout.num_batches, sizeof(layout.num_batches)),
              "cublasLtMatrixLayoutSetAttribute"));
    NANOCP_RETURN_IF_ERROR(
        check(cublasLtMatrixLayoutSetAttribute(result, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                               &layout.batch_stride, sizeof(layout.batch_stride)),
              "cublasLtMatrixLayoutSetAttribute"));
  }
  return result;
}

}  // namespace

struct DenseProducts::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

  ~Plan() {
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
    for (auto* layout : {w, x, out}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }

  // Row-major y = x W^T is column-major y^T = W x^T, with W stored as its transpose.
  Status describe(const DenseProduct& p) {
    NANOCP_RETURN_IF_ERROR(
        check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate"));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    NANOCP_RETURN_IF_ERROR(
        check(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                             sizeof(transposed)),
              "cublasLtMatmulDescSetAttribute"));
    const int32_t batches = p.num_batches;
    NANOCP_ASSIGN_OR_RETURN(
        w, make_layout({p.depth, p.cols, p.depth, CUDA_R_16BF, batches, p.w_batch_stride}));
    NANOCP_ASSIGN_OR_RETURN(
        x, make_layout({p.depth, p.rows, p.x_stride, CUDA_R_16BF, batches, p.x_batch_stride}));
    NANOCP_ASSIGN_OR_RETURN(
        out, make_layout({p.cols, p.rows, p.out_stride, p.float_out ? CUDA_R_32F : CUDA_R_16BF,
                          batches, p.out_batch_stride}));
    return ok_status();
  }

  Status choose_algorithm(cublasLtHandle_t handle) {
    cublasLtMatmulPreference_t preference = nullptr;
    NANOCP_RETURN_IF_ERROR(
        check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate"));
    const size_t workspace_bytes = kWorkspaceBytes;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace_bytes, sizeof(workspace_bytes));
    cublasLtMatmulHeuristicResult_t found = {};
    int num_found = 0;
    const cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(handle, operation, w, x, out, out,
                                                               preference, 1, &found, &num_found);
    cublasLtMatmulPreferenceDestroy(preference);
    NANOCP_RETURN_IF_ERROR(check(code, "cublasLtMatmulAlgoGetHeuristic"));
    if (num_found == 0) return unsupported("cuBLASLt has no algorithm for a product");
    algorithm = found.algo;
    return ok_status();
  }
};

Result<std::unique_ptr<DenseProducts>> DenseProducts::create() {
  std::unique_ptr<DenseProducts> products(new DenseProducts());
  NANOCP_RETURN_IF_ERROR(check(cublasLtCreate(&products->handle_), "cublasLtCreate"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMalloc(&products->workspace_, kWorkspaceBytes), "cuBLASLt workspace"));
  return products;
}

DenseProducts::~DenseProducts() {
  plans_.clear();
  if (workspace_ != nullptr) static_cast<void>(cudaFree(workspace_));
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Result<DenseProducts::Plan*> DenseProducts::plan_for(const DenseProduct& p) {
  const Key key = {
      p.rows,      p.cols,        p.depth,          p.x_stride,       p.out_stride,
      p.float_out, p.num_batches, p.x_batch_stride, p.w_batch_stride, p.out_batch_stride};
  auto& plan = plans_[key];
  if (plan == nullptr) {
    auto created = std::make_unique<Plan>();
    NANOCP_RETURN_IF_ERROR(created->describe(p));
    const Status chosen = created->choose_algorithm(handle_);
    if (!chosen.ok()) {
      return Error{chosen.error().code, chosen.error().message + " of " + std::to_string(p.rows) +
                                            " x " + std::to_string(p.depth) + " by " +
                                            std::to_string(p.cols)};
    }
    plan = std::move(created);
  }
  return plan.get();
}

Status DenseProducts::launch(const DenseProduct& product, cudaStream_t stream) {
  if (product.rows == 0 || product.cols == 0) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(Plan * plan, plan_for(product));
  const float one = 1.0F;
  const float zero = 0.0F;
  return check(cublasLtMatmul(handle_, plan->operation, &one, product.w, plan->w, product.x,
                              plan->x, &zero, product.out, plan->out, product.out, plan->out,
                              &plan->algorithm, workspace_, kWorkspaceBytes, stream),
               "cublasLtMatmul");
}

}  // namespace nanocp::cuda
