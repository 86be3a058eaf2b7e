// What `nanocp bench serve` prints and writes. The JSON is described in docs/bench-serve.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "apps/bench_serve_options.h"
#include "base/result.h"
#include "load/load_run.h"
#include "load/serve_metrics.h"

namespace nanocp::apps {

// What was decided with the server's help.
struct ServeTarget {
  std::string model;
  std::string prompts;  // in words: "random ids 1000:30000"
};

struct ServeRun {
  double rate_per_s = 0.0;  // 0: closed loop
  int concurrency = 0;      // 0: open loop
  uint64_t seed = 0;
  uint64_t prompt_seed = 0;  // of its own, so that no run finds its prompts in a prefix cache
  load::LoadResult result;
  load::ServeMetrics metrics;
};

void print_serve_header();
// A line of figures, and below it what is to be known about them.
void print_serve_run(const BenchServeOptions& options, const ServeRun& run);

// Whether the client itself kept up.
bool is_client_on_time(const BenchServeOptions& options, const load::ClientLag& lag);

// The document without runs; `started_at` is a UTC time.
nlohmann::json serve_json(const BenchServeOptions& options, const ServeTarget& target,
                          const std::string& started_at);
nlohmann::json serve_run_json(const BenchServeOptions& options, const ServeRun& run);
// "16 req/s", or "concurrency 8" where that is not 0.
std::string serve_level(double rate_per_s, int concurrency);
// The same of a run of such a document.
std::string serve_level(const nlohmann::json& run);

}  // namespace nanocp::apps
