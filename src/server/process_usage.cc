#include "server/process_usage.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace nanocp::server {

ProcessUsage read_process_usage() {
  ProcessUsage usage;
  rusage times = {};
  if (getrusage(RUSAGE_SELF, &times) == 0) {
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    usage.cpu_s = seconds(times.ru_utime) + seconds(times.ru_stime);
  }
  std::ifstream pages("/proc/self/statm");
  int64_t num_total = 0;
  int64_t num_resident = 0;
  if (pages >> num_total >> num_resident) {
    usage.resident_bytes = num_resident * sysconf(_SC_PAGESIZE);
  }
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  if (!error) usage.num_open_files = std::distance(begin(files), end(files));
  return usage;
}

}  // namespace nanocp::server
