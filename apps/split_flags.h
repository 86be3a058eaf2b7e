// Flags that bound how requests are split, for commands that run a model and those that simulate
// it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace nanocp::apps {

// Where the values go; their defaults are shown. Requires: they outlive the parsing.
struct SplitFlags {
  int64_t& cp_threshold_tokens;
  int64_t& min_tokens_per_shard;
  int& max_cp_degree;  // 0: all instances
};

void add_split_flags(CLI::App& command, const char* group, const SplitFlags& flags);

}  // namespace nanocp::apps
