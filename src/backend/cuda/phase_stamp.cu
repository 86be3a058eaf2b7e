#include "backend/cuda/phase_stamp.h"

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/flag_wait.cuh"

namespace nanocp::cuda {
namespace {

__global__ void stamp_kernel(uint64_t* stamp) {
  *stamp = device::global_time_ns();
}

}  // namespace

Status launch_phase_stamp(uint64_t* stamp, cudaStream_t stream) {
  stamp_kernel<<<1, 1, 0, stream>>>(stamp);
  return cuda_status(cudaGetLastError(), "launch of a phase stamp");
}

}  // namespace nanocp::cuda
