// Whether the driver of this host serves this program. Pure function, any thread.
#pragma once

#include <cstdint>

#include "backend/device_info.h"
#include "base/result.h"

namespace nanocp::backend {

// Versions as cudaDriverGetVersion and cudaRuntimeGetVersion give them, 1000 x major + 10 x minor;
// the first succeeds with 0 where no driver is installed. Within a major version any driver serves.
inline Status check_driver_version(int32_t driver_version, int32_t runtime_version) {
  if (driver_version == 0) {
    return not_found(
        "no NVIDIA driver on this host (no libcuda.so.1 that works): install one for CUDA " +
        format_cuda_version(runtime_version) + " or newer, or use --device cpu");
  }
  if (driver_version / 1000 < runtime_version / 1000) {
    return unsupported("the NVIDIA driver is too old: it serves CUDA " +
                       format_cuda_version(driver_version) + ", this program needs CUDA " +
                       format_cuda_version(runtime_version) + "; update the driver");
  }
  return ok_status();
}

}  // namespace nanocp::backend
