// The GPUs of this host, as their driver reports them. Implemented by backend/cuda, or by
// backend/no_cuda in a build without CUDA. Owns nothing; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace nanocp::backend {

struct DeviceInfo {
  int32_t index = 0;  // as CUDA counts them, after CUDA_VISIBLE_DEVICES
  std::string name;
  int32_t compute_major = 0;
  int32_t compute_minor = 0;
  int32_t num_multiprocessors = 0;
  int64_t total_memory_bytes = 0;
  int64_t free_memory_bytes = 0;
  int32_t driver_version = 0;   // newest CUDA the driver can serve: 1000 x major + 10 x minor
  int32_t runtime_version = 0;  // the CUDA runtime built into this program, same form
};

// "13.0" for 13000.
inline std::string format_cuda_version(int32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// All devices, at least one. The error says which part is missing: CUDA in this build, a driver, a
// driver new enough, or a device. Reading the free memory of a device creates a context on it.
Result<std::vector<DeviceInfo>> list_devices();

}  // namespace nanocp::backend
