#include "apps/devices_command.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "apps/command_error.h"
#include "backend/device_info.h"

namespace nanocp::apps {
namespace {

using backend::DeviceInfo;

std::string format_gib(int64_t size_bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GiB",
                static_cast<double>(size_bytes) / (1024.0 * 1024.0 * 1024.0));
  return text;
}

std::string compute_capability(const DeviceInfo& device) {
  return std::to_string(device.compute_major) + "." + std::to_string(device.compute_minor);
}

void print_text(const std::vector<DeviceInfo>& devices) {
  std::cout << "CUDA runtime " << backend::format_cuda_version(devices.front().runtime_version)
            << ", driver for CUDA " << backend::format_cuda_version(devices.front().driver_version)
            << '\n';
  for (const DeviceInfo& device : devices) {
    std::cout << "device " << device.index << ": " << device.name << ", compute capability "
              << compute_capability(device) << ", " << device.num_multiprocessors
              << " multiprocessors, " << format_gib(device.free_memory_bytes) << " free of "
              << format_gib(device.total_memory_bytes) << '\n';
  }
}

void print_json(const std::vector<DeviceInfo>& devices) {
  nlohmann::json list = nlohmann::json::array();
  for (const DeviceInfo& device : devices) {
    list.push_back({{"index", device.index},
                    {"name", device.name},
                    {"compute_capability", compute_capability(device)},
                    {"num_multiprocessors", device.num_multiprocessors},
                    {"total_memory_bytes", device.total_memory_bytes},
                    {"free_memory_bytes", device.free_memory_bytes},
                    {"driver_version", backend::format_cuda_version(device.driver_version)},
                    {"runtime_version", backend::format_cuda_version(device.runtime_version)}});
  }
  std::cout << nlohmann::json{{"devices", std::move(list)}}.dump(2) << '\n';
}

int run_devices(bool as_json) {
  const auto devices = backend::list_devices();
  if (!devices.ok()) return report_error(devices.error());
  if (as_json) {
    print_json(*devices);
  } else {
    print_text(*devices);
  }
  return 0;
}

}  // namespace

void add_devices_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("devices", "List the GPUs of this host");
  const auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "Print JSON");
  command->callback([as_json, &exit_code] { exit_code = run_devices(*as_json); });
}

}  // namespace nanocp::apps
