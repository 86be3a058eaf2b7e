#include "apps/engine_options.h"

#include <algorithm>
#include <limits>

#include "apps/in_range.h"
#include "apps/split_flags.h"

namespace nanocp::apps {
namespace {

constexpr int kDefaultMaxNumSeqs = 256;
constexpr int kInstancesMax = 256;
constexpr int kIntMax = std::numeric_limits<int>::max();
constexpr int64_t kTokensMax = int64_t{1} << 40;

void add_model_group(CLI::App& command, EngineOptions& options, const char* config_flag) {
  const char* group = "Model";
  command.add_option(config_flag, options.config_file, "Config file, if not MODEL_DIR/config.json")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--load-format", options.load_format,
                  "auto: read the weights; dummy: random weights from the config alone")
      ->check(CLI::IsMember({"auto", "dummy"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--expert-weights", options.expert_weights,
          "Experts on a GPU: stored (fp8 and mxfp4 as they are), bf16 (converted), or auto: "
          "stored where the kernels read it, else bf16")
      ->check(CLI::IsMember({"auto", "stored", "bf16"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-model-len", options.max_model_len,
                  "Longest prompt and output together (default: what the model allows)")
      ->check(in_range<int64_t>(1, kTokensMax))
      ->type_name("TOKENS")
      ->group(group);
}

void add_instance_group(CLI::App& command, EngineOptions& options) {
  const char* group = "Instances and context parallelism";
  command.add_option("--device", options.device, "cpu, or cuda: one GPU for each instance")
      ->check(CLI::IsMember({"cpu", "cuda"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--instances,--data-parallel-size", options.num_instances,
                  "Instances: each holds all attention weights and a share of the experts")
      ->check(in_range(1, kInstancesMax))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--exchange", options.exchange,
                  "How GPUs exchange rows. nvlink: stores into the memory of peers; nccl: send and "
                  "receive, without step graphs; auto: nvlink where GPUs allow it")
      ->check(CLI::IsMember({"auto", "nvlink", "nccl"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--policy", options.policy,
                  "bound, uniform_cp, threshold_cp or dcp (default: uniform_cp if --cp-degree "
                  "is given, else dcp)")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--router", options.router,
                  "Of policy bound: round_robin, least_requests, least_kv, power_of_two or "
                  "any_instance")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--cp-degree", options.cp_degree,
                  "Instances that hold one request's KV cache (uniform_cp, threshold_cp; "
                  "default: --max-cp-degree)")
      ->check(in_range(1, kInstancesMax))
      ->type_name("D")
      ->group(group);
  add_split_flags(command, group,
                  {.cp_threshold_tokens = options.cp_threshold_tokens,
                   .min_tokens_per_shard = options.min_tokens_per_shard,
                   .max_cp_degree = options.max_cp_degree});
}

void add_memory_group(CLI::App& command, EngineOptions& options) {
  const char* group = "KV cache";
  command
      .add_option("--block-size", options.block_size,
                  "Tokens in one KV block (default: 16 on the CPU, 64 on a GPU)")
      ->check(in_range(1, 1 << 16))
      ->type_name("TOKENS")
      ->group(group);
  command
      .add_option("--kv-cache-dtype", options.kv_cache_dtype,
                  "auto: bf16 on a GPU, float32 on the CPU; bf16; fp8: e4m3, half of bf16")
      ->check(CLI::IsMember({"auto", "bf16", "fp8"}).description(""))
      ->capture_default_str()
      ->group(group);
  CLI::Option* blocks =
      command.add_option("--num-kv-blocks", options.num_kv_blocks, "KV blocks of each instance")
          ->check(in_range<int64_t>(1, kIntMax))
          ->type_name("N")
          ->group(group);
  command
      .add_option("--kv-memory", options.kv_memory_bytes,
                  "Memory for KV blocks on each instance, e.g. 512MiB (default: what the "
                  "requests need, at most a quarter of all memory)")
      ->transform(CLI::AsSizeValue(false).description(""))
      ->type_name("SIZE")
      ->excludes(blocks)
      ->group(group);
  command
      .add_option("--gpu-memory-utilization", options.gpu_memory_utilization,
                  "Share of a GPU's memory for weights, activations and KV blocks together")
      ->check(in_range(0.01, 1.0))
      ->type_name("SHARE")
      ->capture_default_str()
      ->group(group);
}

void add_graph_group(CLI::App& command, EngineOptions& options) {
  const char* group = "Step graphs (GPU)";
  command
      .add_flag("--enforce-eager", options.enforce_eager,
                "Launch every kernel of a step instead of a captured graph")
      ->group(group);
  command
      .add_option("--max-graph-rows", options.max_graph_rows,
                  "Steps of so many rows on an instance run as captured graphs")
      ->check(in_range(1, 1 << 16))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

void add_limit_group(CLI::App& command, EngineOptions& options) {
  const char* group = "Steps";
  command
      .add_option("--max-num-batched-tokens", options.max_num_batched_tokens,
                  "Rows of one instance in one step")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-num-seqs", options.max_num_seqs,
                  "Running requests bound to one instance (default: 256, or "
                  "--max-num-batched-tokens if that is less)")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->group(group);
  command
      .add_option("--prefill-chunk", options.prefill_chunk_tokens,
                  "Prompt tokens of one request in one step (default: what the step has room "
                  "for)")
      ->check(in_range(1, kIntMax))
      ->type_name("TOKENS")
      ->group(group);
  command
      .add_flag("--async-scheduling,!--no-async-scheduling", options.async_scheduling,
                "Plan and launch each step while the one before it runs (GPU; default: on)")
      ->group(group);
  command.add_option("--threads", options.num_threads, "CPU threads in all (default: all cores)")
      ->check(in_range(1, 4096))
      ->type_name("N")
      ->group(group);
  command
      .add_option("--wait-timeout", options.wait_timeout_s,
                  "Longest wait of one instance for another")
      ->check(in_range(0.001, 86400.0))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void add_engine_options(CLI::App& command, EngineOptions& options, const char* config_flag) {
  add_model_group(command, options, config_flag);
  add_instance_group(command, options);
  add_memory_group(command, options);
  add_limit_group(command, options);
  add_graph_group(command, options);
}

int block_size(const EngineOptions& options) {
  if (options.block_size > 0) return options.block_size;
  return options.device == "cuda" ? 64 : 16;
}

int max_num_seqs(const EngineOptions& options) {
  if (options.max_num_seqs > 0) return options.max_num_seqs;
  return std::min(kDefaultMaxNumSeqs, options.max_num_batched_tokens);
}

tensor::KvFormat kv_format(const EngineOptions& options) {
  if (options.kv_cache_dtype == "fp8") return tensor::KvFormat::kFp8;
  const bool is_plain = options.kv_cache_dtype == "auto" && options.device == "cpu";
  return is_plain ? tensor::KvFormat::kF32 : tensor::KvFormat::kBf16;
}

std::string policy_name(const EngineOptions& options) {
  if (!options.policy.empty()) return options.policy;
  return options.cp_degree > 0 ? "uniform_cp" : "dcp";
}

scheduler::PolicyOptions policy_options(const EngineOptions& options) {
  const int max_degree = options.max_cp_degree > 0 ? options.max_cp_degree : options.num_instances;
  return {.num_instances = options.num_instances,
          .router = options.router,
          .degree = options.cp_degree > 0 ? options.cp_degree : max_degree,
          .threshold_tokens = options.cp_threshold_tokens,
          .min_tokens_per_shard = options.min_tokens_per_shard,
          .max_degree = options.max_cp_degree,
          .costs = options.device == "cpu" ? scheduler::costs_without_routes()
                                           : scheduler::PlacementCosts{}};
}

}  // namespace nanocp::apps
