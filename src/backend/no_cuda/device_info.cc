#include "backend/device_info.h"

namespace nanocp::backend {

Result<std::vector<DeviceInfo>> list_devices() {
  return unsupported(
      "no GPU devices: this nanocp was built without CUDA; configure with -DNANOCP_CUDA=ON "
      "(preset cuda) to use GPUs");
}

}  // namespace nanocp::backend
