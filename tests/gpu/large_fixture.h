// A test for each checkpoint with real head sizes, on GPUs. NANOCP_LARGE_FIXTURES names the folder
// of the checkpoints; skipped where that, or a GPU, is missing.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "backend/device_info.h"
#include "e2e/test_model.h"

namespace nanocp::e2e {

inline int num_gpus() {
  const auto devices = backend::list_devices();
  return devices.ok() ? static_cast<int>(devices->size()) : 0;
}

class LargeFixture : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (num_gpus() == 0) GTEST_SKIP() << "no GPU";
    const char* root = std::getenv("NANOCP_LARGE_FIXTURES");
    const std::string dir = std::string(root != nullptr ? root : ".") + "/" + GetParam();
    if (!std::filesystem::exists(dir + "/model.safetensors")) GTEST_SKIP() << "no " << dir;
    model_ = load_test_model(dir, "config.json");
  }

  TestModel model_;
};

}  // namespace nanocp::e2e
