// Asks NCCL's device API where the windows of all ranks lie in this GPU's address space.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>

#include "base/result.h"

namespace nanocp::comm {

// addresses[rank] := the window of `rank`, for 0 <= rank < num_ranks. Device memory of the current
// device. Enqueues one thread.
Status launch_resolve_peers(ncclWindow_t window, int32_t num_ranks, uint8_t** addresses,
                            cudaStream_t stream);

}  // namespace nanocp::comm
