// Marks in a stream: the GPU's time when all earlier work of the stream has run. For profiles of
// captured steps, where host events would change what is measured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "base/result.h"

namespace nanocp::cuda {

// *stamp := nanoseconds of the GPU's global timer (its resolution is 32 ns on H100). Device memory.
Status launch_phase_stamp(uint64_t* stamp, cudaStream_t stream);

}  // namespace nanocp::cuda
