#include "backend/device_info.h"

#include <cuda_runtime.h>

#include "backend/driver_version.h"

namespace nanocp::backend {
namespace {

Error cuda_error(const char* call, cudaError_t code) {
  return {ErrorCode::kInternal, std::string(call) + " failed: " + cudaGetErrorName(code) + " (" +
                                    cudaGetErrorString(code) + ")"};
}

Result<int> count_devices() {
  int num_devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&num_devices);
  if (code == cudaErrorNoDevice || (code == cudaSuccess && num_devices == 0)) {
    return not_found(
        "the NVIDIA driver reports no GPU: check nvidia-smi, CUDA_VISIBLE_DEVICES and, in a "
        "container, that devices are passed in");
  }
  if (code != cudaSuccess) return cuda_error("cudaGetDeviceCount", code);
  return num_devices;
}

Status read_free_memory(DeviceInfo& info) {
  int previous = 0;
  cudaError_t code = cudaGetDevice(&previous);
  if (code != cudaSuccess) return cuda_error("cudaGetDevice", code);
  code = cudaSetDevice(info.index);
  if (code != cudaSuccess) return cuda_error("cudaSetDevice", code);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  code = cudaMemGetInfo(&free_bytes, &total_bytes);
  static_cast<void>(cudaSetDevice(previous));
  if (code != cudaSuccess) return cuda_error("cudaMemGetInfo", code);
  info.free_memory_bytes = static_cast<int64_t>(free_bytes);
  return ok_status();
}

Result<DeviceInfo> read_device(int index) {
  cudaDeviceProp properties{};
  const cudaError_t code = cudaGetDeviceProperties(&properties, index);
  if (code != cudaSuccess) return cuda_error("cudaGetDeviceProperties", code);
  DeviceInfo info;
  info.index = index;
  info.name = properties.name;
  info.compute_major = properties.major;
  info.compute_minor = properties.minor;
  info.num_multiprocessors = properties.multiProcessorCount;
  info.total_memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  NANOCP_RETURN_IF_ERROR(read_free_memory(info));
  return info;
}

}  // namespace

Result<std::vector<DeviceInfo>> list_devices() {
  int driver_version = 0;
  int runtime_version = 0;
  cudaError_t code = cudaRuntimeGetVersion(&runtime_version);
  if (code != cudaSuccess) return cuda_error("cudaRuntimeGetVersion", code);
  code = cudaDriverGetVersion(&driver_version);
  if (code != cudaSuccess) return cuda_error("cudaDriverGetVersion", code);
  NANOCP_RETURN_IF_ERROR(check_driver_version(driver_version, runtime_version));
  NANOCP_ASSIGN_OR_RETURN(const int num_devices, count_devices());

  std::vector<DeviceInfo> devices;
  for (int index = 0; index < num_devices; ++index) {
    NANOCP_ASSIGN_OR_RETURN(DeviceInfo info, read_device(index));
    info.driver_version = driver_version;
    info.runtime_version = runtime_version;
    devices.push_back(std::move(info));
  }
  return devices;
}

}  // namespace nanocp::backend
