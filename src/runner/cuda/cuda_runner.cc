#include "runner/cuda/cuda_runner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>

#include "backend/cuda/cuda_status.h"
#include "backend/device_info.h"
#include "base/clock.h"
#include "comm/nccl/nccl_group.h"
#include "comm/nvlink/exchange_layout.h"
#include "comm/nvlink/symmetric_heap.h"
#include "runner/cuda/exchange_choice.h"

namespace nanocp::runner {
namespace {

constexpr int64_t kLoadTimeoutUs = int64_t{3600} * 1'000'000;
constexpr int64_t kProfileBlocks = 4;

Status check_options(const DeviceRunnerOptions& options) {
  if (options.num_instances < 1 || options.num_instances > 512) {
    return invalid_argument("--instances must be 1 to 512, not " +
                            std::to_string(options.num_instances));
  }
  if (options.block_size < 16 || options.block_size % 16 != 0 || options.block_size > 4096) {
    return invalid_argument("on a GPU --block-size must be a multiple of 16 up to 4096, not " +
                            std::to_string(options.block_size));
  }
  if (options.max_rows < 1) {
    return invalid_argument("--max-num-batched-tokens must be at least 1");
  }
  if (options.num_blocks == 0 &&
      !(options.memory_utilization > 0.0 && options.memory_utilization <= 1.0)) {
    return invalid_argument("--gpu-memory-utilization must be above 0 and at most 1");
  }
  return ok_status();
}

Status check_kv_format(tensor::KvFormat format) {
  if (format == tensor::KvFormat::kF32) {
    return unsupported("on a GPU --kv-cache-dtype is bf16 or fp8, not float32");
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<DeviceRunner>> create_device_runner(
    std::shared_ptr<const model::ModelSpec> spec,
    std::shared_ptr<const model::ModelWeights> weights, const DeviceRunnerOptions& options) {
  return CudaRunner::create(std::move(spec), std::move(weights), options);
}

Result<std::unique_ptr<DeviceRunner>> CudaRunner::create(
    std::shared_ptr<const model::ModelSpec> spec,
    std::shared_ptr<const model::ModelWeights> weights, const DeviceRunnerOptions& options) {
  NANOCP_RETURN_IF_ERROR(check_options(options));
  NANOCP_RETURN_IF_ERROR(CudaInstance::check_model(*spec));
  NANOCP_RETURN_IF_ERROR(check_kv_format(options.kv_format));
  std::unique_ptr<CudaRunner> runner(new CudaRunner(std::move(spec), options));
  NANOCP_RETURN_IF_ERROR(runner->open_devices());
  NANOCP_RETURN_IF_ERROR(runner->settle_exchange());
  NANOCP_RETURN_IF_ERROR(runner->plan_weights(weights.get()));
  NANOCP_RETURN_IF_ERROR(runner->start(weights.get()));
  return std::unique_ptr<DeviceRunner>(std::move(runner));
}

CudaRunner::CudaRunner(std::shared_ptr<const model::ModelSpec> spec,
                       const DeviceRunnerOptions& options)
    : spec_(std::move(spec)),
      options_(options),
      devices_(options.devices),
      workers_(static_cast<size_t>(options.num_instances)),
      finished_(static_cast<size_t>(options.num_instances)) {
  for (int i = static_cast<int>(devices_.size()); i < options.num_instances; ++i) {
    devices_.push_back(i);
  }
}

Status CudaRunner::open_devices() {
  NANOCP_ASSIGN_OR_RETURN(found_, backend::list_devices());
  NANOCP_RETURN_IF_ERROR(check_device_count(devices_, static_cast<int>(found_.size())));
  for (const int device : devices_) {
    NANOCP_RETURN_IF_ERROR(check_compute_capability(found_[static_cast<size_t>(device)]));
  }
  device_name_ = found_[static_cast<size_t>(devices_[0])].name;
  return ok_status();
}

Status CudaRunner::plan_weights(const model::ModelWeights* weights) {
  NANOCP_ASSIGN_OR_RETURN(expert_formats_,
                          choose_expert_formats(*spec_, weights, options_.expert_weights));
  weight_bytes_ = count_device_bytes(*spec_, expert_formats_);
  if (!expert_formats_.note.empty()) note(expert_formats_.note);
  note(describe_weights(*spec_, expert_formats_, weight_bytes_, options_.num_instances));
  return check_weights_fit();
}

Status CudaRunner::check_weights_fit() const {
  for (const int device : devices_) {
    const backend::DeviceInfo& info = found_[static_cast<size_t>(device)];
    NANOCP_RETURN_IF_ERROR(runner::check_weights_fit(
        weight_bytes_,
        {.device = device,
         .num_instances = options_.num_instances,
         .total_bytes = info.total_memory_bytes,
         .free_bytes = info.free_memory_bytes,
         .memory_utilization = options_.num_blocks > 0 ? 0.0 : options_.memory_utilization}));
  }
  return ok_status();
}

// NCCL's sends and receives stay out of captured graphs, where those of several GPUs of one process
// may wait for one another for ever.
Status CudaRunner::settle_exchange() {
  const bool is_wanted = options_.exchange == ExchangeTransport::kNccl;
  NANOCP_ASSIGN_OR_RETURN(const ExchangeChoice choice,
                          choose_exchange(options_.exchange, devices_));
  options_.exchange = choice.transport;
  if (choice.transport == ExchangeTransport::kNccl) options_.use_graphs = false;
  if (options_.num_instances > 1 || is_wanted) note(describe(choice));
  return ok_status();
}

Status CudaRunner::start(const model::ModelWeights* weights) {
  for (InstanceId i = 0; i < options_.num_instances; ++i) {
    Worker& worker = workers_[static_cast<size_t>(i)];
    worker.instance =
        std::make_unique<CudaInstance>(*spec_, options_, i, devices_[static_cast<size_t>(i)]);
    worker.thread = std::thread([this, i] { work(i); });
  }
  NANOCP_RETURN_IF_ERROR(load(weights));
  num_blocks_ = options_.num_blocks;
  if (num_blocks_ == 0) {
    NANOCP_ASSIGN_OR_RETURN(num_blocks_, choose_num_blocks());
  } else {
    NANOCP_RETURN_IF_ERROR(check_blocks_fit(num_blocks_));
  }
  NANOCP_RETURN_IF_ERROR(connect(num_blocks_));
  if (!options_.use_graphs) return ok_status();
  NANOCP_RETURN_IF_ERROR(
      run_on_all("capturing graphs", [](CudaInstance& instance) { return instance.capture(); }));
  check_exchange_orders();
  note(workers_[0].instance->describe_capture());
  return ok_status();
}

// Whatever graphs the instances pick, they must meet in the same exchanges: comm.epochs.
void CudaRunner::check_exchange_orders() const {
  const std::vector<ExchangeMark> expected = model::exchange_order(*spec_);
  for (const Worker& worker : workers_) {
    for (const auto& [rows, order] : worker.instance->exchange_orders()) {
      if (order == expected) continue;
      check_failed(__FILE__, __LINE__,
                   "instance " + std::to_string(worker.instance->id()) +
                       " would run other exchanges for " + std::to_string(rows) +
                       " rows than the model says");
    }
  }
}

// All GPUs at once; progress counts the bytes of all.
Status CudaRunner::load(const model::ModelWeights* weights) {
  const SteadyClock clock;
  const int64_t start_us = clock.now_us();
  const int64_t total_bytes =
      weight_bytes_.replicated * options_.num_instances + weight_bytes_.experts;
  std::mutex progress_mutex;
  int64_t done_bytes = 0;
  const auto done = [&](int64_t count) {
    std::lock_guard lock(progress_mutex);
    done_bytes += count;
    if (options_.progress) options_.progress(std::min(done_bytes, total_bytes), total_bytes);
  };
  NANOCP_RETURN_IF_ERROR(run_on_all("loading weights", [&](CudaInstance& instance) {
    return instance.load(weights, expert_formats_, done);
  }));
  const double seconds = static_cast<double>(clock.now_us() - start_us) / 1e6;
  const double gigabytes = static_cast<double>(done_bytes) / 1e9;
  char text[96];
  if (weights == nullptr) {
    std::snprintf(text, sizeof(text), "made %.2f GB of dummy weights in %.2f s", gigabytes,
                  seconds);
  } else {
    std::snprintf(text, sizeof(text), "loaded %.2f GB of weights in %.2f s (%.2f GB/s)", gigabytes,
                  seconds, gigabytes / seconds);
  }
  note(text);
  return ok_status();
}

// Gives every instance an exchange heap with room for `num_blocks` KV blocks.
Status CudaRunner::connect(int64_t num_blocks) {
  NANOCP_RETURN_IF_ERROR(run_on_all("leaving the group", [](CudaInstance& instance) {
    instance.disconnect();
    return ok_status();
  }));
  group_.reset();
  NANOCP_RETURN_IF_ERROR(make_group(num_blocks));
  Status joined = run_on_all("joining the group", [&](CudaInstance& instance) {
    return instance.connect(*group_, num_blocks);
  });
  if (!joined.ok() && joined.error().code == ErrorCode::kResourceExhausted) {
    return resource_exhausted(joined.error().message + "; beside " + std::to_string(num_blocks) +
                              " KV blocks: use fewer (--num-kv-blocks, --kv-memory), a lower "
                              "--max-num-batched-tokens or more --instances");
  }
  NANOCP_RETURN_IF_ERROR(joined);
  if (has_kernels_) return ok_status();
  has_kernels_ = true;
  return run_on_all("loading kernels",
                    [](CudaInstance& instance) { return instance.load_kernels(); });
}

Status CudaRunner::renew_dummy_kv() {
  NANOCP_RETURN_IF_ERROR(wait_for_instances());
  return run_on_all("making K/V", [this](CudaInstance& instance) {
    return instance.renew_dummy_kv(num_blocks_);
  });
}

Status CudaRunner::make_group(int64_t num_blocks) {
  const comm::ExchangeCapacity capacity =
      CudaInstance::exchange_capacity(*spec_, options_, num_blocks);
  if (options_.exchange == ExchangeTransport::kNccl) {
    const int64_t token_bytes =
        CudaInstance::block_bytes(*spec_, options_) / (options_.block_size * spec_->num_layers);
    NANOCP_ASSIGN_OR_RETURN(
        group_, comm::NcclGroup::create({.devices = devices_,
                                         .capacity = capacity,
                                         .kv_row_bytes = (token_bytes + 15) / 16 * 16,
                                         .kv_staging_slot = num_blocks * options_.block_size,
                                         .timeout_us = options_.wait_timeout_us}));
    return ok_status();
  }
  NANOCP_ASSIGN_OR_RETURN(
      group_,
      comm::NvlinkGroup::create(
          {.devices = devices_, .capacity = capacity, .timeout_us = options_.wait_timeout_us}));
  return ok_status();
}

KvRoom CudaRunner::kv_room(InstanceId instance, int64_t existing_blocks) const {
  const auto i = static_cast<size_t>(instance);
  const CudaInstance::Memory memory = workers_[i].instance->memory();
  return {.device = devices_[i],
          .total_bytes = memory.total_bytes,
          .free_bytes = memory.free_bytes,
          .weight_bytes = memory.weight_bytes,
          .reserve_bytes = memory.graph_reserve_bytes,
          .block_bytes = CudaInstance::block_bytes(*spec_, options_),
          .existing_blocks = existing_blocks};
}

// Activations come on top; where they do not fit either, taking them fails.
Status CudaRunner::check_blocks_fit(int64_t num_blocks) const {
  const int64_t exchange_bytes =
      comm::lay_out_exchange(CudaInstance::exchange_capacity(*spec_, options_, 0)).total_bytes;
  for (InstanceId i = 0; i < options_.num_instances; ++i) {
    NANOCP_RETURN_IF_ERROR(check_kv_blocks_fit(kv_room(i, 0), num_blocks, exchange_bytes));
  }
  return ok_status();
}

// A run of the largest step with next to no KV cache shows what everything else takes.
Result<int64_t> CudaRunner::choose_num_blocks() {
  NANOCP_RETURN_IF_ERROR(connect(kProfileBlocks));
  NANOCP_RETURN_IF_ERROR(run_on_all(
      "the profiling run", [](CudaInstance& instance) { return instance.run_largest_step(); }));
  KvBlocks fewest = {.num_blocks = std::numeric_limits<int64_t>::max(), .how = ""};
  for (InstanceId i = 0; i < options_.num_instances; ++i) {
    NANOCP_ASSIGN_OR_RETURN(KvBlocks blocks, kv_blocks_that_fit(kv_room(i, kProfileBlocks),
                                                                options_.memory_utilization));
    if (blocks.num_blocks < fewest.num_blocks) fewest = std::move(blocks);
  }
  note("KV cache: " + std::to_string(fewest.num_blocks) + " blocks of " +
       std::to_string(options_.block_size) + " tokens on each instance = " + fewest.how + ", at " +
       std::to_string(CudaInstance::block_bytes(*spec_, options_)) + " bytes a block");
  return fewest.num_blocks;
}

CudaRunner::~CudaRunner() {
  if (group_ != nullptr) group_->abort("the runner is shutting down");
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  task_ready_.notify_all();
  for (Worker& worker : workers_) {
    if (worker.thread.joinable()) worker.thread.join();
  }
}

void CudaRunner::begin(const Task& task) {
  std::lock_guard lock(mutex_);
  task_ = task;
  num_unfinished_ = options_.num_instances;
  ++task_number_;
  task_ready_.notify_all();
}

bool CudaRunner::wait_finished(int64_t timeout_us) {
  std::unique_lock lock(mutex_);
  return task_done_.wait_for(lock, std::chrono::microseconds(timeout_us),
                             [&] { return num_unfinished_ == 0; });
}

std::string CudaRunner::unfinished_instances() const {
  std::string names;
  for (size_t i = 0; i < finished_.size(); ++i) {
    if (finished_[i] == task_number_) continue;
    names += (names.empty() ? "instance " : ", instance ") + std::to_string(i);
  }
  return names;
}

// The first failure is the cause; the others were aborted by it.
Status CudaRunner::first_failure() const {
  if (group_ != nullptr) NANOCP_RETURN_IF_ERROR(group_->failure());
  const Error* failure = nullptr;
  for (const Worker& worker : workers_) {
    if (worker.status.ok()) continue;
    const Error& error = worker.status.error();
    if (failure == nullptr || error.code != ErrorCode::kAborted) failure = &error;
  }
  if (failure != nullptr) return *failure;
  return ok_status();
}

Status CudaRunner::run_on_all(const char* what, const Task& task) {
  begin(task);
  if (!wait_finished(kLoadTimeoutUs)) {
    return Error{ErrorCode::kDeadlineExceeded, std::string(what) + " did not end within " +
                                                   std::to_string(kLoadTimeoutUs / 1'000'000) +
                                                   " s on " + unfinished_instances()};
  }
  return first_failure();
}

bool CudaRunner::wait_for_task(uint64_t& seen) {
  // Steps follow one another closely: a short spin saves the wake-up.
  const SteadyClock clock;
  const int64_t spin_until_us = clock.now_us() + 200;
  while (task_number_ == seen && !stopping_ && clock.now_us() < spin_until_us) {
  }
  std::unique_lock lock(mutex_);
  // Ends with the runner: the destructor wakes it.
  task_ready_.wait(lock, [&] { return stopping_ || task_number_ != seen; });
  seen = task_number_;
  return !stopping_;
}

void CudaRunner::work(InstanceId instance) {
  const auto self = static_cast<size_t>(instance);
  uint64_t seen = 0;
  while (wait_for_task(seen)) {
    Worker& worker = workers_[self];
    worker.status = task_(*worker.instance);
    if (!worker.status.ok() && group_ != nullptr) {
      group_->abort("instance " + std::to_string(instance) + ": " + worker.status.error().message);
      group_->leave(instance);
    }
    std::lock_guard lock(mutex_);
    finished_[self] = seen;
    if (--num_unfinished_ == 0) task_done_.notify_all();
  }
  workers_[self].instance.reset();  // on its own thread, where its device is current
}

engine::StepTicket CudaRunner::launch(const scheduler::StepPlan& plan) {
  NANOCP_CHECK_EQ(plan.instances.size(), workers_.size());
  // The launch of the step before may not be over; a failure is told by the next wait().
  static_cast<void>(wait_for_instances());
  if (!first_failure().ok()) return ++num_launched_;
  all_on_gpu_ = true;
  for (const auto& tasks : plan.sample_tasks) {
    all_on_gpu_ = all_on_gpu_ && CudaInstance::samples_on_gpu(tasks);
  }
  for (const auto& tasks : plan.score_tasks) all_on_gpu_ = all_on_gpu_ && tasks.empty();
  begin([&plan](CudaInstance& instance) { return instance.enqueue_step(plan); });
  return ++num_launched_;
}

// Where logits are handed back, each step needs them unchanged until they are copied. Unless the
// last layer has experts, an instance could be a step ahead of one that still reads blocks it
// writes to (see comm.flow_control).
bool CudaRunner::runs_ahead() const {
  const bool is_lock_step = options_.num_instances == 1 || spec_->layers.back().is_moe;
  return is_lock_step && !options_.keep_logits;
}

// Tokens sampled on another GPU, or on the host, are not where the next step could take them.
bool CudaRunner::can_launch_ahead(const scheduler::StepPlan& next) const {
  if (!all_on_gpu_) return false;
  for (size_t i = 0; i < next.instances.size(); ++i) {
    for (const UnreadToken& unread : next.instances[i].unread_tokens) {
      if (unread.source != static_cast<InstanceId>(i)) return false;
    }
  }
  return true;
}

Result<engine::StepResult> CudaRunner::wait(engine::StepTicket ticket) {
  ++num_waited_;
  NANOCP_CHECK_EQ(ticket, num_waited_);
  NANOCP_RETURN_IF_ERROR(wait_for_instances());
  NANOCP_RETURN_IF_ERROR(first_failure());
  begin([](CudaInstance& instance) { return instance.finish_step(); });
  NANOCP_RETURN_IF_ERROR(wait_for_instances());
  NANOCP_RETURN_IF_ERROR(first_failure());
  engine::StepResult result;
  for (Worker& worker : workers_) worker.instance->collect(result);
  return result;
}

Status CudaRunner::wait_for_instances() {
  if (wait_finished(options_.step_timeout_us)) return ok_status();
  const std::string message = "step " + std::to_string(num_launched_) + " did not finish within " +
                              std::to_string(options_.step_timeout_us / 1'000'000) +
                              " s; the engine waited for " + unfinished_instances();
  group_->abort(message);
  // The instances still read the plan; one that does not come back leaves nothing to go on with.
  if (!wait_finished(options_.step_timeout_us)) {
    check_failed(__FILE__, __LINE__, message + ", also after an abort");
  }
  return Error{ErrorCode::kDeadlineExceeded, message};
}

void CudaRunner::note(const std::string& line) const {
  if (options_.note) options_.note(line);
}

}  // namespace nanocp::runner
