#include "runner/cuda/cuda_runner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>

#include "backend/cuda/cuda_status.h"
#include "backend/device_info.h"
#include "base/clock.h"
#include "model/memory_estimate.h"

namespace nanocp::runner {
namespace {

constexpr int64_t kLoadTimeoutUs = int64_t{3600} * 1'000'000;
constexpr int64_t kProfileBlocks = 4;
constexpr double kMiB = 1024.0 * 1024.0;

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

Status check_kv_format(const model::ModelSpec& spec, tensor::KvFormat format) {
  if (format == tensor::KvFormat::kFp8 && spec.attention.is_mla()) {
    return unsupported(
        "--kv-cache-dtype fp8 on a GPU serves grouped-query attention only; this model has latent "
        "attention: use bf16 or --device cpu");
  }
  if (format == tensor::KvFormat::kF32) {
    return unsupported("on a GPU --kv-cache-dtype is bf16 or fp8, not float32");
  }
  return ok_status();
}

Status check_device(const backend::DeviceInfo& info) {
  if (info.compute_major == 9 && info.compute_minor == 0) return ok_status();
  return unsupported("GPU " + std::to_string(info.index) + " (" + info.name +
                     ") has compute capability " + std::to_string(info.compute_major) + "." +
                     std::to_string(info.compute_minor) +
                     "; the kernels of this build need 9.0 (H100, H200, GH200)");
}

std::string to_mib(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.0f MiB", static_cast<double>(bytes) / kMiB);
  return text;
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
  NANOCP_RETURN_IF_ERROR(check_kv_format(*spec, options.kv_format));
  std::unique_ptr<CudaRunner> runner(new CudaRunner(std::move(spec), options));
  NANOCP_RETURN_IF_ERROR(runner->open_devices());
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
  NANOCP_ASSIGN_OR_RETURN(const std::vector<backend::DeviceInfo> found, backend::list_devices());
  for (const int device : devices_) {
    if (device < 0 || device >= static_cast<int>(found.size())) {
      return not_found(std::to_string(options_.num_instances) +
                       " instances need as many GPUs; this host shows " +
                       std::to_string(found.size()) + ": use --instances " +
                       std::to_string(found.size()) + " or fewer");
    }
    NANOCP_RETURN_IF_ERROR(check_device(found[static_cast<size_t>(device)]));
  }
  device_name_ = found[static_cast<size_t>(devices_[0])].name;
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
  const auto& expected = workers_[0].instance->exchange_orders().begin()->second;
  NANOCP_CHECK(!expected.empty());
  for (const Worker& worker : workers_) {
    for (const auto& [rows, order] : worker.instance->exchange_orders()) {
      if (order == expected) continue;
      check_failed(__FILE__, __LINE__,
                   "instance " + std::to_string(worker.instance->id()) +
                       " would run other "
                       "exchanges for " +
                       std::to_string(rows) + " rows than instance 0");
    }
  }
}

// All GPUs at once; progress counts the bytes of all.
Status CudaRunner::load(const model::ModelWeights* weights) {
  int64_t total_bytes = 0;
  const model::WeightBytes bytes = model::count_weight_bytes(*spec_);
  total_bytes = bytes.replicated * options_.num_instances + bytes.experts;
  std::mutex progress_mutex;
  int64_t done_bytes = 0;
  const auto done = [&](int64_t count) {
    std::lock_guard lock(progress_mutex);
    done_bytes += count;
    if (options_.progress) options_.progress(std::min(done_bytes, total_bytes), total_bytes);
  };
  return run_on_all("loading weights",
                    [&](CudaInstance& instance) { return instance.load(weights, done); });
}

// Gives every instance an exchange heap with room for `num_blocks` KV blocks.
Status CudaRunner::connect(int64_t num_blocks) {
  NANOCP_RETURN_IF_ERROR(run_on_all("leaving the group", [](CudaInstance& instance) {
    instance.disconnect();
    return ok_status();
  }));
  group_.reset();
  NANOCP_RETURN_IF_ERROR(make_group(num_blocks));
  return run_on_all("joining the group", [&](CudaInstance& instance) {
    return instance.connect(group_->view(instance.id()), num_blocks);
  });
}

Status CudaRunner::make_group(int64_t num_blocks) {
  const comm::ExchangeCapacity capacity =
      CudaInstance::exchange_capacity(*spec_, options_, num_blocks);
  NANOCP_ASSIGN_OR_RETURN(
      group_,
      comm::NvlinkGroup::create(
          {.devices = devices_, .capacity = capacity, .timeout_us = options_.wait_timeout_us}));
  return ok_status();
}

// A run of the largest step with next to no KV cache shows what everything else takes.
Result<int64_t> CudaRunner::choose_num_blocks() {
  NANOCP_RETURN_IF_ERROR(connect(kProfileBlocks));
  NANOCP_RETURN_IF_ERROR(run_on_all(
      "the profiling run", [](CudaInstance& instance) { return instance.run_largest_step(); }));
  const int64_t block_bytes = CudaInstance::block_bytes(*spec_, options_);
  int64_t num_blocks = std::numeric_limits<int64_t>::max();
  std::string how;
  for (const Worker& worker : workers_) {
    const CudaInstance::Memory memory = worker.instance->memory();
    const auto allowed =
        static_cast<int64_t>(static_cast<double>(memory.total_bytes) * options_.memory_utilization);
    const int64_t used = memory.total_bytes - memory.free_bytes + memory.graph_reserve_bytes;
    const int64_t blocks = (allowed - used) / block_bytes + kProfileBlocks;
    if (blocks >= num_blocks) continue;
    num_blocks = blocks;
    how = to_mib(allowed) + " allowed (" + std::to_string(options_.memory_utilization) + " of " +
          to_mib(memory.total_bytes) + ") - " + to_mib(used) + " used by weights (" +
          to_mib(memory.weight_bytes) + "), activations, exchange, graphs and others";
  }
  if (num_blocks < 2) {
    return resource_exhausted("no room for a KV cache: " + how +
                              "; use more instances, or a higher --gpu-memory-utilization");
  }
  note("KV cache: " + std::to_string(num_blocks) + " blocks of " +
       std::to_string(options_.block_size) + " tokens on each instance = " + how + ", at " +
       std::to_string(block_bytes) + " bytes a block");
  return num_blocks;
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
    }
    std::lock_guard lock(mutex_);
    finished_[self] = seen;
    if (--num_unfinished_ == 0) task_done_.notify_all();
  }
  workers_[self].instance.reset();  // on its own thread, where its device is current
}

engine::StepTicket CudaRunner::launch(const scheduler::StepPlan& plan) {
  NANOCP_CHECK_EQ(plan.instances.size(), workers_.size());
  begin([&plan](CudaInstance& instance) { return instance.run_step(plan); });
  return task_number_;
}

Result<engine::StepResult> CudaRunner::wait(engine::StepTicket ticket) {
  NANOCP_CHECK_EQ(ticket, task_number_.load());
  if (!wait_finished(options_.step_timeout_us)) {
    const std::string message = "step " + std::to_string(ticket) + " did not finish within " +
                                std::to_string(options_.step_timeout_us / 1'000'000) +
                                " s; the engine waited for " + unfinished_instances();
    group_->abort(message);
    // The instances still read the plan; one that does not come back leaves nothing to go on with.
    if (!wait_finished(options_.step_timeout_us)) {
      check_failed(__FILE__, __LINE__, message + ", also after an abort");
    }
    return Error{ErrorCode::kDeadlineExceeded, message};
  }
  NANOCP_RETURN_IF_ERROR(first_failure());
  engine::StepResult result;
  for (Worker& worker : workers_) worker.instance->collect(result);
  return result;
}

void CudaRunner::note(const std::string& line) const {
  if (options_.note) options_.note(line);
}

}  // namespace nanocp::runner
