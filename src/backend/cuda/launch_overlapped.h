// Launches of kernels that overlap the end of the kernel before them: each begins with
// cudaGridDependencySynchronize in every thread and reads only constants ahead of it.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "backend/cuda/cuda_status.h"

namespace nanocp::cuda {

template <typename Args>
Status launch_overlapped(void (*kernel)(Args), dim3 grid, int32_t threads, const Args& args,
                         cudaStream_t stream, const char* what, size_t shared_bytes = 0) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cuda_status(cudaLaunchKernelEx(&config, kernel, args), std::string("launch of ") + what);
}

// Of the current device.
inline Result<int32_t> num_multiprocessors() {
  int device = 0;
  int count = 0;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaGetDevice(&device), "cudaGetDevice"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
                  "cudaDeviceGetAttribute"));
  return count;
}

inline int32_t divide_up(int64_t value, int64_t by) {
  return static_cast<int32_t>((value + by - 1) / by);
}

// Threads that give each vector of eight of a row its own, in whole warps.
inline int32_t threads_of_row(int32_t values) {
  return divide_up(values, 8 * 32) * 32;
}

}  // namespace nanocp::cuda
