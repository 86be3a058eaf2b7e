// What a host lacks for a GPU run is told in one line, from numbers alone: none of it needs a GPU.
#include "runner/device/device_limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "backend/driver_version.h"

namespace nanocp::runner {
namespace {

constexpr int64_t kGB = 1'000'000'000;

// One line with all the words, of that kind.
void expect_error(const Status& status, ErrorCode code, const std::vector<std::string>& words) {
  ASSERT_FALSE(status.ok());
  const std::string& message = status.error().message;
  EXPECT_EQ(status.error().code, code) << message;
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0) << message;
  for (const std::string& word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << "no '" << word << "' in: " << message;
  }
}

template <typename T>
Status status_of(const Result<T>& result) {
  if (result.ok()) return ok_status();
  return result.error();
}

backend::DeviceInfo gpu(const std::string& name, int major, int minor) {
  backend::DeviceInfo info;
  info.name = name;
  info.compute_major = major;
  info.compute_minor = minor;
  return info;
}

TEST(DeviceLimits, OnlyCapability90IsServed) {
  EXPECT_TRUE(check_compute_capability(gpu("NVIDIA H100 80GB HBM3", 9, 0)).ok());
  for (const auto& [name, major, minor] : {std::tuple("NVIDIA A100-SXM4-80GB", 8, 0),
                                           {"NVIDIA L40S", 8, 9},
                                           {"NVIDIA B200", 10, 0},
                                           {"imaginary", 9, 1}}) {
    expect_error(
        check_compute_capability(gpu(name, major, minor)), ErrorCode::kUnsupported,
        {name, std::to_string(major) + "." + std::to_string(minor), "need 9.0", "--device cpu"});
  }
}

TEST(DeviceLimits, TheDriverMustBeThereAndServeTheRuntimesMajorVersion) {
  EXPECT_TRUE(backend::check_driver_version(13000, 13000).ok());
  EXPECT_TRUE(backend::check_driver_version(13020, 13000).ok());
  EXPECT_TRUE(backend::check_driver_version(13000, 13010).ok());
  EXPECT_TRUE(backend::check_driver_version(14000, 13010).ok());
  expect_error(backend::check_driver_version(0, 13000), ErrorCode::kNotFound,
               {"no NVIDIA driver", "libcuda.so.1", "CUDA 13.0 or newer"});
  expect_error(backend::check_driver_version(12080, 13000), ErrorCode::kUnsupported,
               {"too old", "serves CUDA 12.8", "needs CUDA 13.0", "update the driver"});
}

TEST(DeviceLimits, EveryInstanceNeedsAGpu) {
  EXPECT_TRUE(check_device_count({0, 1}, 2).ok());
  EXPECT_TRUE(check_device_count({1}, 2).ok());
  std::vector<int> sixteen(16);
  for (int i = 0; i < 16; ++i) sixteen[static_cast<size_t>(i)] = i;
  expect_error(check_device_count(sixteen, 2), ErrorCode::kNotFound,
               {"16 instances need as many GPUs", "shows 2", "--instances 2"});
  expect_error(check_device_count({3}, 2), ErrorCode::kNotFound, {"GPU 3 does not exist", "2"});
  expect_error(check_device_count({-1}, 2), ErrorCode::kNotFound, {"GPU -1 does not exist"});
}

// 10 GB for every instance and 128 experts of 1 GB.
constexpr model::WeightBytes kWeights = {
    .replicated = 10 * kGB, .experts = 128 * kGB, .num_experts = 128};

WeightRoom room(int num_instances, double utilization) {
  return {.device = 3,
          .num_instances = num_instances,
          .total_bytes = 80 * kGB,
          .free_bytes = 79 * kGB,
          .memory_utilization = utilization};
}

TEST(DeviceLimits, WeightsMustFitUnderTheShare) {
  EXPECT_TRUE(check_weights_fit(kWeights, room(2, 0.95)).ok());  // 74 GB of 76 - 1
  EXPECT_TRUE(check_weights_fit(kWeights, room(2, 0.0)).ok());
  // 74 GB of 72 - 1: the GPU has the room, the share has not.
  expect_error(check_weights_fit(kWeights, room(2, 0.9)), ErrorCode::kResourceExhausted,
               {"--instances 2", "74.00 GB", "64.00 GB of experts", "GPU 3", "79.00 GB free",
                "80.00 GB", "--gpu-memory-utilization 0.90 leaves 71.00 GB", "above 0.94"});
  // What others use counts.
  WeightRoom shared = room(2, 0.95);
  shared.free_bytes = 50 * kGB;
  expect_error(check_weights_fit(kWeights, shared), ErrorCode::kResourceExhausted,
               {"50.00 GB free", "leaves 46.00 GB", "use --instances 4 or more"});
}

TEST(DeviceLimits, TheRemedyNamesEnoughInstancesOrSaysThatNoneAre) {
  expect_error(check_weights_fit(kWeights, room(1, 0.0)), ErrorCode::kResourceExhausted,
               {"138.00 GB", "use --instances 2 or more"});
  const model::WeightBytes dense = {
      .replicated = 100 * kGB, .experts = 128 * kGB, .num_experts = 128};
  expect_error(check_weights_fit(dense, room(8, 0.9)), ErrorCode::kResourceExhausted,
               {"116.00 GB", "more instances do not help", "100.00 GB", "more memory"});
}

KvRoom kv_room() {
  return {.device = 1,
          .total_bytes = 80 * kGB,
          .free_bytes = 30 * kGB,
          .weight_bytes = 40 * kGB,
          .reserve_bytes = 2 * kGB,
          .block_bytes = kGB / 100,
          .existing_blocks = 4};
}

TEST(DeviceLimits, KvBlocksFillTheShare) {
  const auto blocks = kv_blocks_that_fit(kv_room(), 0.9);  // 72 - 52 GB, and the four there are
  ASSERT_TRUE(blocks.ok());
  EXPECT_EQ(blocks->num_blocks, 2004);
  EXPECT_NE(blocks->how.find("72.00 GB allowed (0.90 of 80.00 GB) - 52.00 GB used"),
            std::string::npos)
      << blocks->how;
  EXPECT_NE(blocks->how.find("weights (40.00 GB)"), std::string::npos) << blocks->how;
}

TEST(DeviceLimits, AShareWithoutRoomForKvNamesOneThatHas) {
  expect_error(status_of(kv_blocks_that_fit(kv_room(), 0.6)), ErrorCode::kResourceExhausted,
               {"no room for a KV cache on GPU 1", "48.00 GB allowed", "52.00 GB used",
                "--gpu-memory-utilization above 0.66", "--instances"});
  KvRoom full = kv_room();
  full.free_bytes = 0;
  const Status status = status_of(kv_blocks_that_fit(full, 1.0));
  expect_error(status, ErrorCode::kResourceExhausted, {"--instances"});
  EXPECT_EQ(status.error().message.find("utilization"), std::string::npos);
}

TEST(DeviceLimits, GivenKvBlocksMustFitBesideTheWeights) {
  EXPECT_TRUE(check_kv_blocks_fit(kv_room(), 2700, kGB).ok());  // 27 of 30 - 2 - 1 GB
  expect_error(check_kv_blocks_fit(kv_room(), 2701, kGB), ErrorCode::kResourceExhausted,
               {"2701 KV blocks need 27.01 GB", "10000000 bytes a block", "GPU 1 has 30.00 GB free",
                "at most some 2700", "--num-kv-blocks", "--kv-memory"});
  // The largest number that the flag takes.
  expect_error(check_kv_blocks_fit(kv_room(), 2'147'483'647, kGB), ErrorCode::kResourceExhausted,
               {"2147483647 KV blocks need 21474836.47 GB"});
  KvRoom full = kv_room();
  full.free_bytes = kGB;
  expect_error(check_kv_blocks_fit(full, 2, kGB), ErrorCode::kResourceExhausted,
               {"more --instances or a lower --max-num-batched-tokens"});
}

}  // namespace
}  // namespace nanocp::runner
