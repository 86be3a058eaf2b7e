#include "runner/device_runner.h"

namespace nanocp::runner {

Result<std::unique_ptr<DeviceRunner>> create_device_runner(
    std::shared_ptr<const model::ModelSpec> /*spec*/,
    std::shared_ptr<const model::ModelWeights> /*weights*/,
    const DeviceRunnerOptions& /*options*/) {
  return unsupported(
      "this program was built without CUDA: build with `cmake --preset cuda`, or use --device cpu");
}

}  // namespace nanocp::runner
