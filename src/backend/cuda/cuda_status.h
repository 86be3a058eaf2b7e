// CUDA return codes as Status: the call's name and the driver's own words.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "base/result.h"

namespace nanocp::cuda {

inline Status cuda_status(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return ok_status();
  const ErrorCode kind =
      code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return Error{kind, what + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")"};
}

}  // namespace nanocp::cuda
