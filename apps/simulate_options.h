// What `nanocp simulate` is asked for. Plain data, filled by CLI11 while the command line is
// parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "sim/metrics.h"
#include "sim/recorder.h"

namespace nanocp::apps {

struct SimulateOptions {
  std::string model = "qwen3-30b-a3b";
  std::string hardware = "h100-nvlink";
  std::string constants_file;  // measured constants of the model; empty: derived ones
  int num_instances = 8;
  int num_per_domain = 0;  // 0: as the hardware profile says
  double memory_utilization = 0.9;
  int64_t kv_tokens_per_instance = 0;  // 0: from the memory
  std::string kv_cache_dtype = "bf16";

  std::string workload =
      "95% lognormal(1k,4k) -> uniform(200,1000) ; "
      "5% loguniform(32k,256k) -> uniform(200,1000)";
  std::string trace_file;              // goes before `workload`
  bool rotate_trace = false;           // each seed starts elsewhere in it
  std::string arrivals = "poisson";    // poisson, gamma, constant, trace
  double arrivals_cv = 2.0;            // gamma
  std::vector<double> rates = {10.0};  // requests per second
  double duration_s = 600.0;
  int64_t num_requests_min = 0;  // arrivals go on until so many are measured
  double warmup_s = 0.0;
  double drain_s = 600.0;
  double clip_share = 0.0;  // prompts are cut to this share of an instance's KV memory; 0: not
  std::vector<uint64_t> seeds = {1};
  bool prefill_here = false;
  bool checks_steps = false;

  std::vector<std::string> policies = {"bound/least_requests", "bound/any_instance", "dcp"};
  int64_t cp_threshold_tokens = 100'000;
  int64_t min_tokens_per_shard = 4096;
  int max_cp_degree = 0;  // 0: all instances
  int block_size = 64;
  int max_num_seqs = 256;
  int max_num_batched_tokens = 2048;
  int admission_lookahead = 4;
  int max_overtakes = 16;

  std::string slo = "tpot=50ms,queue=10s";
  sim::Objectives objectives;  // from `slo`
  bool stop_at_miss = false;

  bool find_rate = false;  // the largest rate that keeps the objectives, instead of `rates`
  double rate_precision = 0.015;
  double rate_guess = 0.0;  // 0: estimated
  int num_jobs = 1;         // threads

  bool plan = false;      // the fewest GPUs that sustain the rate
  std::vector<int> gpus;  // numbers to choose from, rising; empty: 1, 2, 4 and whole nodes

  std::string json_file;
  std::string html_file;
  std::string png_file;
  double sample_every_s = 0.0;  // 0: as often as a page can show, if one is written
  double timeline_at_s = -1.0;  // below 0: half of the duration, if a page is written
  int num_timeline_steps = 240;

  bool wants_page() const { return !html_file.empty() || !png_file.empty(); }
};

void add_simulate_options(CLI::App& command, SimulateOptions& options);
// Of these the ones that describe the load, its rates and times, and the objectives.
void add_load_options(CLI::App& command, SimulateOptions& options);

// "tpot=50ms,queue=10s,percentile=99".
Result<sim::Objectives> parse_slo(const std::string& text);

// What a run keeps of its course, for the reports that are asked for.
sim::RecorderOptions recorder_options(const SimulateOptions& options);

}  // namespace nanocp::apps
