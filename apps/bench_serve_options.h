// What `nanocp bench serve` is asked for. Plain data, filled by CLI11 while the command line is
// parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "load/prompt.h"
#include "load/serve_metrics.h"

namespace nanocp::apps {

struct BenchServeOptions {
  std::string base_url = "http://127.0.0.1:8000";
  std::string endpoint = "completions";  // completions, chat
  std::string model;                     // empty: the first that the server lists
  std::string api_key;
  std::string extra_body;
  bool stops_at_eos = false;

  std::string workload = "512 -> 128";
  std::string trace_file;  // goes before `workload`
  bool rotate_trace = false;
  int64_t prompt_tokens_max = 0;  // 0: not cut
  int64_t output_tokens_max = 0;
  std::string prompts = "auto";  // auto, ids, text
  std::string prompt_file;       // goes before `prompts`
  std::string token_ids;         // LOW:HIGH; empty: what the server takes

  std::vector<double> rates;       // requests per second, an open loop for each
  std::vector<int> concurrencies;  // a closed loop for each
  std::string arrivals = "poisson";
  double arrivals_cv = 2.0;  // gamma
  int64_t num_requests = 0;  // 0: as many as come
  double duration_s = 0.0;   // 0: until all have come
  double warmup_s = 0.0;
  std::vector<uint64_t> seeds = {1};
  double connect_timeout_s = 10.0;
  double first_byte_timeout_s = 600.0;
  double request_timeout_s = 1800.0;
  int num_threads = 2;
  double max_lag_ms = 20.0;

  std::string slo = "tpot=50ms,ttft=2s";
  load::ServeObjectives objectives;  // from `slo`
  std::string json_file;
  std::string html_file;

  load::Api api() const { return endpoint == "chat" ? load::Api::kChat : load::Api::kCompletions; }
};

void add_bench_serve_options(CLI::App& command, BenchServeOptions& options);

// Fails where flags do not go together; sets what follows from others.
Status check_bench_serve_options(BenchServeOptions& options);

// "100:1000".
Result<load::TokenIdRange> parse_token_ids(const std::string& text);

}  // namespace nanocp::apps
