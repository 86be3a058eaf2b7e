// Flags that all commands share which run a model: the model, its instances, the policy, limits.
// Plain data, filled by CLI11 while the command line is parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "scheduler/policy.h"
#include "tensor/kv_format.h"

namespace nanocp::apps {

struct EngineOptions {
  std::string model_dir;
  std::string config_file;              // empty: MODEL_DIR/config.json
  std::string load_format = "auto";     // auto or dummy
  std::string expert_weights = "auto";  // on a GPU: auto, stored or bf16
  std::string device = "cpu";           // cpu or cuda
  int num_instances = 1;
  std::string policy;  // empty: uniform_cp if a degree is given, else dcp
  std::string router = "least_kv";
  int cp_degree = 0;      // 0: not given
  int max_cp_degree = 0;  // 0: all instances
  int64_t cp_threshold_tokens = 32768;
  int64_t min_tokens_per_shard = 4096;
  int block_size = 0;                   // 0: 16 on the CPU, 64 on a GPU
  std::string kv_cache_dtype = "auto";  // auto, bf16 or fp8
  int64_t num_kv_blocks = 0;            // per instance; 0: from kv_memory_bytes
  uint64_t kv_memory_bytes = 0;         // per instance; 0: what the requests need, within a limit
  int max_num_batched_tokens = 512;     // rows of one instance in one step
  int max_num_seqs = 0;                 // 0: 256, or fewer if fewer rows fit a step
  int64_t max_model_len = 0;            // 0: what the model allows
  int prefill_chunk_tokens = 0;         // 0: only max_num_batched_tokens limits
  int num_threads = 0;                  // 0: all cores
  bool async_scheduling = true;         // plan a step while the one before it runs
  double wait_timeout_s = 30.0;
  double gpu_memory_utilization = 0.9;
  int max_graph_rows = 256;
  std::string exchange = "auto";  // auto, nvlink or nccl
  bool enforce_eager = false;     // launch every kernel of a step instead of a captured graph
};

// Adds the flags to `command`, in groups; `config_flag` names the model's config file. Requires:
// `options` outlives the parsing.
void add_engine_options(CLI::App& command, EngineOptions& options,
                        const char* config_flag = "--config");

int block_size(const EngineOptions& options);
int max_num_seqs(const EngineOptions& options);
tensor::KvFormat kv_format(const EngineOptions& options);
std::string policy_name(const EngineOptions& options);
scheduler::PolicyOptions policy_options(const EngineOptions& options);

}  // namespace nanocp::apps
