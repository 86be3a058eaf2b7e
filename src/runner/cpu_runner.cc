#include "runner/cpu_runner.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/random.h"
#include "model/memory_estimate.h"
#include "ops/sampling.h"

namespace nanocp::runner {
namespace {

int64_t physical_memory_bytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
}

Status check_options(const model::ModelSpec& spec, const CpuRunnerOptions& options) {
  if (options.num_instances < 1 || options.num_instances > 512) {
    return invalid_argument("--instances must be 1 to 512, not " +
                            std::to_string(options.num_instances));
  }
  if (options.block_size < 1 || options.block_size > 4096) {
    return invalid_argument("--block-size must be 1 to 4096 tokens, not " +
                            std::to_string(options.block_size));
  }
  if (options.max_rows < 1) {
    return invalid_argument("--max-num-batched-tokens must be at least 1");
  }
  const int64_t token_bytes = model::kv_bytes_per_token(spec, options.kv_format);
  const int64_t memory = physical_memory_bytes();
  const int64_t tokens_max = memory / token_bytes / options.num_instances;
  if (options.num_blocks < 1 || options.num_blocks > tokens_max / options.block_size) {
    return resource_exhausted(
        "the KV cache needs " + std::to_string(options.num_blocks) + " blocks of " +
        std::to_string(options.block_size) + " tokens on each of " +
        std::to_string(options.num_instances) + " instances at " + std::to_string(token_bytes) +
        " bytes per token; this machine's memory holds 1 to " +
        std::to_string(tokens_max / options.block_size) + ": set --num-kv-blocks");
  }
  return ok_status();
}

std::vector<engine::PhaseSpan> spans_of(const model::PhaseClock& phases) {
  std::vector<engine::PhaseSpan> spans;
  const auto& marks = phases.marks();
  for (size_t i = 0; i < marks.size(); ++i) {
    const double end_us = i + 1 < marks.size() ? marks[i + 1].at_us : phases.end_us();
    spans.push_back({marks[i].phase, marks[i].layer, marks[i].at_us, end_us - marks[i].at_us});
  }
  return spans;
}

}  // namespace

Result<std::unique_ptr<CpuRunner>> CpuRunner::create(
    std::shared_ptr<const model::ModelSpec> spec,
    std::shared_ptr<const model::ModelWeights> weights, const CpuRunnerOptions& options) {
  NANOCP_RETURN_IF_ERROR(check_options(*spec, options));
  return std::unique_ptr<CpuRunner>(new CpuRunner(std::move(spec), std::move(weights), options));
}

CpuRunner::CpuRunner(std::shared_ptr<const model::ModelSpec> spec,
                     std::shared_ptr<const model::ModelWeights> weights,
                     const CpuRunnerOptions& options)
    : spec_(std::move(spec)),
      weights_(std::move(weights)),
      options_(options),
      group_(model::make_exchange_shape(*spec_, options.num_instances, options.max_rows),
             options.wait_timeout_us),
      instances_(static_cast<size_t>(options.num_instances)),
      finished_(instances_.size(), 0),
      duration_us_(instances_.size(), 0),
      idle_us_(instances_.size(), 0.0) {
  const int cores = options.num_threads > 0 ? options.num_threads
                                            : static_cast<int>(std::thread::hardware_concurrency());
  const int threads_each = std::max(1, cores / options.num_instances);
  for (InstanceId i = 0; i < options.num_instances; ++i) start_instance(i, threads_each);
}

void CpuRunner::start_instance(InstanceId instance, int num_threads) {
  Instance& self = instances_[static_cast<size_t>(instance)];
  const model::InstanceModelOptions model_options = {.instance = instance,
                                                     .num_instances = options_.num_instances,
                                                     .num_threads = num_threads,
                                                     .block_size = options_.block_size,
                                                     .num_blocks = options_.num_blocks,
                                                     .kv_format = options_.kv_format,
                                                     .profile = options_.profile};
  self.model = std::make_unique<model::InstanceModel>(*spec_, *weights_, model_options,
                                                      group_.make_shard_exchange(instance),
                                                      group_.make_expert_dispatcher(instance));
  self.thread = std::thread([this, instance] { work(instance); });
}

CpuRunner::~CpuRunner() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  group_.abort("the runner is shutting down");
  step_ready_.notify_all();
  for (Instance& instance : instances_) instance.thread.join();
}

engine::StepTicket CpuRunner::launch(const scheduler::StepPlan& plan) {
  NANOCP_CHECK_EQ(plan.instances.size(), instances_.size());
  std::lock_guard lock(mutex_);
  plan_ = &plan;
  ++step_;
  step_ready_.notify_all();
  return step_;
}

Result<engine::StepResult> CpuRunner::wait(engine::StepTicket ticket) {
  std::unique_lock lock(mutex_);
  NANOCP_CHECK_EQ(ticket, step_);
  if (wait_finished(lock)) return collect();
  const std::string message = "step " + std::to_string(step_) + " did not finish within " +
                              std::to_string(options_.step_timeout_us / 1'000'000) +
                              " s; the engine waited for " + unfinished_instances();
  group_.abort(message);
  // The instances still read the plan; one that does not come back leaves nothing to go on with.
  if (!wait_finished(lock)) check_failed(__FILE__, __LINE__, message + ", also after an abort");
  return Error{ErrorCode::kDeadlineExceeded, message};
}

bool CpuRunner::wait_finished(std::unique_lock<std::mutex>& lock) {
  const auto timeout = std::chrono::microseconds(options_.step_timeout_us);
  return step_done_.wait_for(lock, timeout, [&] {
    return std::all_of(finished_.begin(), finished_.end(),
                       [&](uint64_t step) { return step == step_; });
  });
}

std::string CpuRunner::unfinished_instances() const {
  std::string names;
  for (size_t i = 0; i < finished_.size(); ++i) {
    if (finished_[i] == step_) continue;
    names += (names.empty() ? "instance " : ", instance ") + std::to_string(i);
  }
  return names;
}

Result<engine::StepResult> CpuRunner::collect() {
  // The first failure is the cause; the others were aborted by it.
  const Error* failure = nullptr;
  for (const Instance& instance : instances_) {
    if (instance.status.ok()) continue;
    const Error& error = instance.status.error();
    if (failure == nullptr || error.code != ErrorCode::kAborted) failure = &error;
  }
  if (failure != nullptr) return *failure;
  engine::StepResult result;
  for (Instance& instance : instances_) {
    std::move(instance.tokens.begin(), instance.tokens.end(), std::back_inserter(result.tokens));
    std::move(instance.scored.begin(), instance.scored.end(), std::back_inserter(result.scored));
  }
  if (options_.profile) {
    for (Instance& instance : instances_) {
      result.spans.push_back(spans_of(instance.model->phases()));
    }
  }
  if (options_.time_steps) result.idle_us = idle_us_;
  result.duration_us = *std::max_element(duration_us_.begin(), duration_us_.end());
  return result;
}

void CpuRunner::work(InstanceId instance) {
  const auto self = static_cast<size_t>(instance);
  const SteadyClock clock;
  int64_t end_us = 0;  // of the step before
  std::unique_lock lock(mutex_);
  while (true) {
    // Ends with the runner: the destructor wakes it.
    step_ready_.wait(lock, [&] { return stopping_ || finished_[self] != step_; });
    if (stopping_) return;
    const uint64_t step = step_;
    const scheduler::StepPlan* plan = plan_;
    lock.unlock();
    const int64_t start_us = clock.now_us();
    run_step(instance, *plan);
    const double idle_us = end_us == 0 ? 0.0 : static_cast<double>(start_us - end_us);
    end_us = clock.now_us();
    lock.lock();
    finished_[self] = step;
    duration_us_[self] = end_us - start_us;
    idle_us_[self] = idle_us;
    step_done_.notify_one();
  }
}

void CpuRunner::run_step(InstanceId instance, const scheduler::StepPlan& plan) {
  Instance& self = instances_[static_cast<size_t>(instance)];
  self.tokens.clear();
  self.scored.clear();
  self.status = [&]() -> Status {
    NANOCP_ASSIGN_OR_RETURN(const tensor::Matrix logits,
                            self.model->forward(plan.instances[static_cast<size_t>(instance)]));
    NANOCP_RETURN_IF_ERROR(sample(instance, plan, logits));
    score(instance, plan);
    return ok_status();
  }();
  self.model->phases().end_step();
  if (!self.status.ok()) {
    group_.abort("instance " + std::to_string(instance) + ": " + self.status.error().message);
  }
}

Status CpuRunner::sample(InstanceId instance, const scheduler::StepPlan& plan,
                         tensor::Matrix logits) {
  const auto& tasks = plan.sample_tasks[static_cast<size_t>(instance)];
  NANOCP_CHECK_EQ(static_cast<int64_t>(tasks.size()), logits.rows);
  auto& tokens = instances_[static_cast<size_t>(instance)].tokens;
  for (size_t i = 0; i < tasks.size(); ++i) {
    const request::Sequence& sequence = *tasks[i].sequence;
    const std::span<float> row = logits.row_span(static_cast<int64_t>(i));
    engine::SampledToken token;
    token.sequence = sequence.id;
    if (options_.keep_logits) token.details.make().logits.assign(row.begin(), row.end());
    const uint64_t random_bits = counter_random(sequence.request.sampling.seed,
                                                static_cast<uint64_t>(tasks[i].output_index));
    ops::SampledChoice choice = ops::sample(
        row, sequence.request.sampling, {sequence.request.prompt, sequence.output}, random_bits);
    token.token = choice.token;
    token.logprob = choice.logprob;
    if (!choice.top_logprobs.empty()) {
      token.details.make().top_logprobs = std::move(choice.top_logprobs);
    }
    tokens.push_back(std::move(token));
  }
  return ok_status();
}

// Some rows at a time: the logits of a whole chunk could take gigabytes.
void CpuRunner::score(InstanceId instance, const scheduler::StepPlan& plan) {
  constexpr size_t kRowsMax = 64;
  Instance& self = instances_[static_cast<size_t>(instance)];
  const std::span<const scheduler::ScoreTask> tasks =
      plan.score_tasks[static_cast<size_t>(instance)];
  const std::span<const int32_t> rows = plan.instances[static_cast<size_t>(instance)].score_rows;
  NANOCP_CHECK_EQ(tasks.size(), rows.size());
  for (size_t first = 0; first < tasks.size(); first += kRowsMax) {
    const size_t count = std::min(kRowsMax, tasks.size() - first);
    const tensor::Matrix logits = self.model->logits_of(rows.subspan(first, count));
    for (size_t i = 0; i < count; ++i) {
      const scheduler::ScoreTask& task = tasks[first + i];
      self.scored.push_back({.sequence = task.sequence->id,
                             .position = task.position,
                             .score = ops::score(logits.row_span(static_cast<int64_t>(i)),
                                                 task.sequence->token(task.position),
                                                 task.sequence->request.num_prompt_logprobs)});
    }
  }
}

}  // namespace nanocp::runner
