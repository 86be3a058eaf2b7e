// What this process takes from the machine, as Linux tells it. Any thread; reads /proc.
#pragma once

#include <cstdint>

namespace nanocp::server {

// Zeros where /proc cannot be read.
struct ProcessUsage {
  double cpu_s = 0.0;  // user and system
  int64_t resident_bytes = 0;
  int64_t num_open_files = 0;
};

ProcessUsage read_process_usage();

}  // namespace nanocp::server
