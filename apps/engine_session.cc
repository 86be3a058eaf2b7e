#include "apps/engine_session.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <random>
#include <thread>
#include <utility>

#include "apps/policy_list.h"
#include "apps/progress_bar.h"
#include "kvcache/kv_placement.h"
#include "model/config_parser.h"
#include "model/memory_estimate.h"
#include "model/weight_loader.h"
#include "runner/cpu_runner.h"
#include "runner/device_runner.h"
#include "sim/oracle_policy.h"

namespace nanocp::apps {
namespace {

int64_t physical_memory_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
}

int num_threads(const EngineOptions& options) {
  if (options.num_threads > 0) return options.num_threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Blocks of each instance. Unless told otherwise, any instance can hold all requests: memory that
// is never written is never backed.
int64_t choose_kv_blocks(const EngineOptions& options, const model::ModelSpec& spec,
                         const SessionNeeds& needs) {
  if (options.num_kv_blocks > 0) return options.num_kv_blocks;
  const int64_t block_bytes =
      model::kv_bytes_per_token(spec, kv_format(options)) * block_size(options);
  if (options.kv_memory_bytes > 0) {
    const auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return std::max<int64_t>(
        1, static_cast<int64_t>(std::min(options.kv_memory_bytes, limit)) / block_bytes);
  }
  const int64_t num_blocks_max =
      std::max<int64_t>(1, physical_memory_bytes() / 4 / options.num_instances / block_bytes);
  int64_t num_blocks = 0;
  for (const int64_t num_tokens : needs.request_tokens) {
    num_blocks += kvcache::blocks_for(num_tokens, block_size(options)) + 1;
    if (num_blocks >= num_blocks_max) return num_blocks_max;
  }
  // Beyond the needs, so that the admission watermark does not hold requests back.
  return std::min(num_blocks_max, num_blocks + num_blocks / 32 + 8);
}

Result<std::shared_ptr<const model::ModelWeights>> load(const EngineOptions& options,
                                                        const model::ModelSpec& spec) {
  ProgressBar bar("loading weights");
  model::LoadOptions load_options;
  load_options.dummy = options.load_format == "dummy";
  load_options.num_threads = num_threads(options);
  load_options.read_ahead = options.device == "cpu";
  load_options.progress = [&bar](int64_t done, int64_t total) { bar.update(done, total); };
  load_options.note = [&bar](const std::string& note) {
    bar.finish();
    std::fprintf(stderr, "note: %s\n", note.c_str());
  };
  return model::load_weights(spec, options.model_dir, load_options);
}

Result<engine::EngineOptions> engine_options(const EngineOptions& options,
                                             const model::ModelSpec& spec, int64_t num_blocks) {
  engine::EngineOptions result;
  result.scheduler.num_blocks.assign(static_cast<size_t>(options.num_instances), num_blocks);
  result.scheduler.block_size = block_size(options);
  result.scheduler.max_batched_tokens = options.max_num_batched_tokens;
  result.scheduler.max_num_seqs = max_num_seqs(options);
  result.scheduler.prefill_chunk_tokens = options.prefill_chunk_tokens;
  NANOCP_RETURN_IF_ERROR(scheduler::check_options(result.scheduler));
  result.eos_token_ids = spec.eos_token_ids;
  if (!options.model_dir.empty()) {
    NANOCP_ASSIGN_OR_RETURN(result.eos_token_ids,
                            model::read_eos_token_ids(options.model_dir, spec));
  }
  NANOCP_ASSIGN_OR_RETURN(result.max_model_len, max_model_len(options, spec));
  result.vocab_size = spec.vocab_size;
  result.async_scheduling = options.async_scheduling;
  return result;
}

runner::CpuRunnerOptions runner_options(const EngineOptions& options, int64_t num_blocks,
                                        const SessionNeeds& needs) {
  runner::CpuRunnerOptions result;
  result.num_instances = options.num_instances;
  result.block_size = block_size(options);
  result.num_blocks = num_blocks;
  result.kv_format = kv_format(options);
  result.max_rows = options.max_num_batched_tokens;
  result.num_threads = num_threads(options);
  result.wait_timeout_us = std::llround(options.wait_timeout_s * 1e6);
  result.keep_logits = needs.keep_logits;
  result.profile = needs.profile;
  result.time_steps = needs.time_steps;
  return result;
}

// Blocks that the options ask for; 0: as many as the memory share allows.
int64_t num_device_blocks(const EngineOptions& options, const model::ModelSpec& spec) {
  if (options.num_kv_blocks > 0 || options.kv_memory_bytes == 0) return options.num_kv_blocks;
  const int64_t block_bytes =
      model::kv_bytes_per_token(spec, kv_format(options)) * block_size(options);
  const auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return std::max<int64_t>(
      1, static_cast<int64_t>(std::min(options.kv_memory_bytes, limit)) / block_bytes);
}

runner::ExpertWeightsChoice expert_weights(const EngineOptions& options) {
  if (options.expert_weights == "stored") return runner::ExpertWeightsChoice::kStored;
  if (options.expert_weights == "bf16") return runner::ExpertWeightsChoice::kBf16;
  return runner::ExpertWeightsChoice::kAuto;
}

runner::ExchangeTransport exchange_transport(const std::string& name) {
  if (name == "nvlink") return runner::ExchangeTransport::kNvlink;
  if (name == "nccl") return runner::ExchangeTransport::kNccl;
  return runner::ExchangeTransport::kAuto;
}

runner::DeviceRunnerOptions device_options(const EngineOptions& options,
                                           const model::ModelSpec& spec,
                                           const SessionNeeds& needs) {
  runner::DeviceRunnerOptions result;
  result.num_instances = options.num_instances;
  result.block_size = block_size(options);
  result.num_blocks = num_device_blocks(options, spec);
  result.kv_format = kv_format(options);
  result.memory_utilization = options.gpu_memory_utilization;
  result.max_rows = options.max_num_batched_tokens;
  result.max_graph_rows = std::min(options.max_graph_rows, max_num_seqs(options));
  result.use_graphs = !options.enforce_eager;
  result.expert_weights = expert_weights(options);
  result.exchange = exchange_transport(options.exchange);
  result.profile = needs.profile;
  result.time_steps = needs.time_steps;
  result.wait_timeout_us = std::llround(options.wait_timeout_s * 1e6);
  result.keep_logits = needs.keep_logits;
  result.num_load_threads = std::max(1, num_threads(options) / options.num_instances);
  return result;
}

Result<std::unique_ptr<scheduler::Policy>> make_engine_policy(const EngineOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(std::unique_ptr<scheduler::Policy> policy,
                          make_named_policy(policy_name(options), policy_options(options)));
  if (policy->name() == sim::OraclePolicy::kName) {
    return invalid_argument("policy oracle: its perfect split exists in `nanocp simulate` only");
  }
  return policy;
}

}  // namespace

Result<std::shared_ptr<const model::ModelSpec>> read_spec(const EngineOptions& options) {
  std::error_code error;
  const bool has_dir = std::filesystem::is_directory(options.model_dir, error);
  if (!options.model_dir.empty() && !has_dir) {
    return not_found(options.model_dir + ": no such directory");
  }
  if (options.model_dir.empty() && options.config_file.empty()) {
    return invalid_argument("give a MODEL_DIR, or --config FILE with --load-format dummy");
  }
  if (options.model_dir.empty() && options.load_format != "dummy") {
    return invalid_argument("a config alone has no weights: add --load-format dummy");
  }
  const auto& source = options.config_file.empty() ? options.model_dir : options.config_file;
  NANOCP_ASSIGN_OR_RETURN(model::ModelSpec spec, model::read_config(source));
  return std::make_shared<const model::ModelSpec>(std::move(spec));
}

Result<int64_t> max_model_len(const EngineOptions& options, const model::ModelSpec& spec) {
  if (options.max_model_len == 0) return spec.max_position;
  if (options.max_model_len <= spec.max_position) return options.max_model_len;
  return invalid_argument("--max-model-len is " + std::to_string(options.max_model_len) +
                          ", this model has " + std::to_string(spec.max_position) + " positions");
}

Result<std::unique_ptr<EngineSession>> EngineSession::open(
    const EngineOptions& options, std::shared_ptr<const model::ModelSpec> spec,
    const SessionNeeds& needs) {
  // What is cheap to check goes before the weights are read; the number of blocks may follow later.
  NANOCP_RETURN_IF_ERROR(engine_options(options, *spec, 1));
  const auto policy = make_engine_policy(options);
  if (!policy.ok()) return policy.error();
  std::unique_ptr<EngineSession> session(new EngineSession());
  session->any_length_ = needs.any_length;
  NANOCP_RETURN_IF_ERROR(session->make_runner(options, spec, needs));
  NANOCP_RETURN_IF_ERROR(session->restart(options, *spec));
  return session;
}

Status EngineSession::restart(const EngineOptions& options, const model::ModelSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(std::unique_ptr<scheduler::Policy> policy, make_engine_policy(options));
  NANOCP_ASSIGN_OR_RETURN(engine::EngineOptions limits,
                          engine_options(options, spec, num_kv_blocks_));
  model_len_ = limits.max_model_len;
  if (any_length_) limits.max_model_len = 0;
  engine_.reset();
  // What the former engine's requests have written would be in the K/V of the next ones' prompts.
  if (device_runner_ != nullptr) NANOCP_RETURN_IF_ERROR(device_runner_->renew_dummy_kv());
  const Random random((static_cast<uint64_t>(std::random_device{}()) << 32) ^
                      std::random_device{}());
  engine_ = std::make_unique<engine::Engine>(std::move(limits), std::move(policy), *runner_, clock_,
                                             random);
  return ok_status();
}

int64_t EngineSession::longest_request_tokens() const {
  std::vector<int64_t> capacities;
  for (const scheduler::InstanceLoad& load : engine_->loads())
    capacities.push_back(load.num_blocks);
  const scheduler::Scheduler& scheduler = engine_->scheduler();
  const scheduler::RequestShape shape = {.num_prompt_tokens = model_len_ - 1,
                                         .num_tokens = model_len_ - 1};
  // The last token is never written to the cache.
  const int64_t num_tokens =
      scheduler.policy().max_request_blocks(capacities, shape) * scheduler.options().block_size + 1;
  return std::min(model_len_, num_tokens);
}

Status EngineSession::make_runner(const EngineOptions& options,
                                  std::shared_ptr<const model::ModelSpec> spec,
                                  const SessionNeeds& needs) {
  if (options.device == "cuda") return make_device_runner(options, std::move(spec), needs);
  return make_cpu_runner(options, std::move(spec), needs);
}

Status EngineSession::make_cpu_runner(const EngineOptions& options,
                                      std::shared_ptr<const model::ModelSpec> spec,
                                      const SessionNeeds& needs) {
  device_name_ = "CPU";
  num_kv_blocks_ = choose_kv_blocks(options, *spec, needs);
  NANOCP_ASSIGN_OR_RETURN(std::shared_ptr<const model::ModelWeights> weights, load(options, *spec));
  NANOCP_ASSIGN_OR_RETURN(
      runner_, runner::CpuRunner::create(std::move(spec), std::move(weights),
                                         runner_options(options, num_kv_blocks_, needs)));
  return ok_status();
}

Status EngineSession::make_device_runner(const EngineOptions& options,
                                         std::shared_ptr<const model::ModelSpec> spec,
                                         const SessionNeeds& needs) {
  std::shared_ptr<const model::ModelWeights> weights;  // none: dummy ones are made on the GPU
  if (options.load_format != "dummy") {
    NANOCP_ASSIGN_OR_RETURN(weights, load(options, *spec));
  }
  ProgressBar bar("loading weights to the GPU");
  runner::DeviceRunnerOptions runner_options = device_options(options, *spec, needs);
  runner_options.progress = [&bar](int64_t done, int64_t total) { bar.update(done, total); };
  runner_options.note = [&bar](const std::string& line) {
    bar.finish();
    std::fprintf(stderr, "note: %s\n", line.c_str());
  };
  NANOCP_ASSIGN_OR_RETURN(
      std::unique_ptr<runner::DeviceRunner> runner,
      runner::create_device_runner(std::move(spec), std::move(weights), runner_options));
  device_name_ = runner->device_name();
  num_kv_blocks_ = runner->num_blocks();
  device_runner_ = runner.get();
  runner_ = std::move(runner);
  return ok_status();
}

}  // namespace nanocp::apps
