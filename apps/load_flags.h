// Flags that describe a load: the lengths of its requests and the times at which they come. For
// commands that simulate it, run it in this process, or send it to a server.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace nanocp::apps {

// Where the values go; their defaults are shown. Requires: they outlive the parsing.
struct LengthFlags {
  std::string& workload;
  const char* workload_help;
  std::string& trace_file;
  bool& rotate_trace;
};
void add_length_flags(CLI::App& command, const char* group, const LengthFlags& flags);

struct ArrivalFlags {
  std::string& arrivals;
  double& arrivals_cv;
};
void add_arrival_flags(CLI::App& command, const char* group, const ArrivalFlags& flags);

struct RunFlags {
  double& warmup_s;
  std::vector<uint64_t>& seeds;
};
void add_run_flags(CLI::App& command, const char* group, const RunFlags& flags);

}  // namespace nanocp::apps
