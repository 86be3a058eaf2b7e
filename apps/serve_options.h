// Flags of `nanocp serve`, with the names that users of vLLM know. Plain data, filled by CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/engine_options.h"

namespace nanocp::apps {

struct ServeOptions {
  EngineOptions engine;
  std::vector<std::string> served_names;  // none: the folder's name, and MODEL_DIR as it was given
  std::string chat_template;              // a file; empty: the checkpoint's
  std::string tool_call_parser = "auto";
  std::string reasoning_parser = "auto";
  std::string generation_config = "auto";  // or "none"
  std::string host = "127.0.0.1";
  uint16_t port = 8000;
  std::vector<std::string> api_keys;  // with those of NANOCP_API_KEY
  std::vector<std::string> allowed_origins;
  int64_t max_waiting = 1024;
  int64_t max_waiting_tokens = int64_t{1} << 24;
  int max_connections = 16384;
  uint64_t max_body_bytes = uint64_t{64} << 20;
  int num_io_threads = 2;
  int num_request_threads = 2;
  double idle_timeout_s = 300.0;
  double step_timeout_s = 120.0;
  double shutdown_timeout_s = 30.0;
  std::string access_log;  // a file; "-": standard output; empty: none
  std::string trace_file;  // written when the server ends; empty: none
  bool profile_steps = false;
  std::string config_file;  // of flags
  bool is_bundled = false;  // no MODEL_DIR was given
};

// Adds the flags to `command`. Requires: `options` outlives the parsing.
void add_serve_options(CLI::App& command, ServeOptions& options);

// Keys of flags and environment together; none may be empty.
Result<std::vector<std::string>> collect_api_keys(const ServeOptions& options);

}  // namespace nanocp::apps
