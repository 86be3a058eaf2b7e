#include "comm/nvlink/peer_addresses.h"

#include <nccl_device.h>

#include <string>

namespace nanocp::comm {
namespace {

__global__ void resolve_kernel(ncclWindow_t window, int32_t num_ranks, uint8_t** addresses) {
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    addresses[rank] = static_cast<uint8_t*>(ncclGetLsaPointer(window, 0, rank));
  }
}

}  // namespace

Status launch_resolve_peers(ncclWindow_t window, int32_t num_ranks, uint8_t** addresses,
                            cudaStream_t stream) {
  resolve_kernel<<<1, 1, 0, stream>>>(window, num_ranks, addresses);
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) return ok_status();
  return Error{ErrorCode::kInternal,
               std::string("launch of the address query: ") + cudaGetErrorString(code)};
}

}  // namespace nanocp::comm
