#include "runner/cuda/cuda_instance.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/kv_cache_fill.h"
#include "backend/cuda/weight_ops.h"
#include "base/clock.h"
#include "base/random.h"
#include "model/memory_estimate.h"
#include "ops/sampling.h"
#include "runner/cuda/row_ladder.h"

namespace nanocp::runner {

using cuda::cuda_status;

namespace {

// Of one captured graph, measured on an H100 with driver 580: room to keep for those to come.
constexpr int64_t kGraphBytesPerLayer = 64 << 10;
constexpr float kGreedyTemperature = 1e-5F;  // as ops/sampling.h

bool is_greedy(const SamplingParams& params) {
  return params.temperature < kGreedyTemperature || params.top_k == 1;
}

// Apart from a mask.
bool is_for_gpu(const SamplingParams& params) {
  const bool greedy = is_greedy(params);
  const bool filters = !greedy && (params.top_k > 0 || params.top_p < 1.0F || params.min_p > 0.0F);
  const bool changes = params.repetition_penalty != 1.0F || params.presence_penalty != 0.0F ||
                       params.frequency_penalty != 0.0F || !params.logit_bias.empty() ||
                       !params.forbidden_tokens.empty();
  return !filters && !changes && params.num_logprobs < 0;
}

}  // namespace

bool CudaInstance::samples_on_gpu(std::span<const scheduler::SampleTask> tasks) {
  size_t num_masks = 0;
  for (const scheduler::SampleTask& task : tasks) {
    const SamplingParams& params = task.sequence->request.sampling;
    if (!is_for_gpu(params)) return false;
    num_masks += params.allowed_tokens == nullptr ? 0 : 1;
  }
  return num_masks <= TokenMasks::kRowsMax;
}

CudaInstance::CudaInstance(const model::ModelSpec& spec, const DeviceRunnerOptions& options,
                           InstanceId id, int device)
    : spec_(spec), options_(options), id_(id), device_(device) {}

CudaInstance::~CudaInstance() {
  graphs_.clear();
  forward_.reset();
  image_.reset();
  masks_.reset();
  weights_.reset();
  free_slots();
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

Status CudaInstance::check_model(const model::ModelSpec& spec) {
  return InstanceForward::check_model(spec);
}

comm::ExchangeCapacity CudaInstance::exchange_capacity(const model::ModelSpec& spec,
                                                       const DeviceRunnerOptions& options,
                                                       int64_t num_blocks) {
  const model::AttentionSpec& attention = spec.attention;
  return {.num_instances = options.num_instances,
          .max_rows = options.max_rows,
          .hidden = spec.hidden_size,
          .topk = spec.moe.router.topk,
          .num_heads = attention.num_heads,
          .query_values = attention.num_heads * attention.cache_k_dim(),
          .partial_values = attention.num_heads * attention.cache_v_dim(),
          .kv_cache_bytes = (num_blocks + staging_blocks(options)) * block_bytes(spec, options)};
}

int64_t CudaInstance::staging_blocks(const DeviceRunnerOptions& options) {
  if (options.exchange != ExchangeTransport::kNccl) return 0;
  return (options.max_rows + options.block_size - 1) / options.block_size;
}

int64_t CudaInstance::block_bytes(const model::ModelSpec& spec,
                                  const DeviceRunnerOptions& options) {
  return model::kv_bytes_per_token(spec, options.kv_format) * options.block_size;
}

Status CudaInstance::load(const model::ModelWeights* weights, const ExpertFormats& expert_formats,
                          const std::function<void(int64_t)>& done) {
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaSetDevice(device_), "cudaSetDevice(" + std::to_string(device_) + ")"));
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                     "stream of an instance"));
  DeviceLoadOptions load_options;
  load_options.instance = id_;
  load_options.num_instances = options_.num_instances;
  load_options.dummy_seed = options_.dummy_seed;
  load_options.num_threads = options_.num_load_threads;
  load_options.expert_formats = &expert_formats;
  load_options.done = done;
  has_dummy_weights_ = weights == nullptr;
  NANOCP_ASSIGN_OR_RETURN(weights_, load_device_weights(spec_, weights, load_options));
  return ok_status();
}

Status CudaInstance::connect(comm::ExchangeGroup& group, int64_t num_blocks) {
  step_ = 0;
  link_ = group.link(id_);
  NANOCP_ASSIGN_OR_RETURN(masks_, TokenMasks::create(spec_.vocab_size));
  const int64_t cache_blocks = num_blocks + staging_blocks(options_);
  NANOCP_ASSIGN_OR_RETURN(
      image_, StepImage::create(
                  {.self = id_,
                   .num_instances = options_.num_instances,
                   .max_rows = options_.max_rows,
                   .num_blocks = num_blocks,
                   .kv_staging_slot = link_ == nullptr ? -1 : num_blocks * options_.block_size}));
  NANOCP_ASSIGN_OR_RETURN(forward_,
                          InstanceForward::create(spec_, *weights_, *image_, group.view(id_),
                                                  {.instance = id_,
                                                   .num_instances = options_.num_instances,
                                                   .max_rows = options_.max_rows,
                                                   .block_size = options_.block_size,
                                                   .num_blocks = cache_blocks,
                                                   .kv_format = options_.kv_format,
                                                   .profile = options_.profile,
                                                   .time_steps = options_.time_steps,
                                                   .link = link_}));
  NANOCP_RETURN_IF_ERROR(make_slots());
  return renew_dummy_kv(num_blocks);
}

Status CudaInstance::make_slots() {
  free_slots();
  for (StepSlot& slot : slots_) {
    NANOCP_RETURN_IF_ERROR(cuda_status(
        cudaHostAlloc(reinterpret_cast<void**>(&slot.readout),
                      forward_->stamps_offset() + forward_->num_stamps_max() * sizeof(uint64_t),
                      cudaHostAllocDefault),
        "pinned memory of sampled tokens"));
    NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming),
                                       "event of a step's end"));
  }
  return ok_status();
}

void CudaInstance::free_slots() {
  for (StepSlot& slot : slots_) {
    if (slot.readout != nullptr) static_cast<void>(cudaFreeHost(slot.readout));
    if (slot.done != nullptr) static_cast<void>(cudaEventDestroy(slot.done));
    slot = {};
  }
  num_enqueued_ = 0;
  num_finished_ = 0;
}

// Where the weights are dummy ones, the K/V of benchmarks is too: values as after a norm.
Status CudaInstance::renew_dummy_kv(int64_t num_blocks) {
  if (!has_dummy_weights_) return ok_status();
  const int64_t cache_blocks = num_blocks + staging_blocks(options_);
  const int64_t size_bytes = cache_blocks * block_bytes(spec_, options_);
  const uint64_t seed = options_.dummy_seed + 1;
  if (options_.kv_format == tensor::KvFormat::kFp8) {
    const int64_t num_exponents =
        int64_t{options_.block_size} * spec_.attention.cache_num_kv_heads();
    NANOCP_RETURN_IF_ERROR(
        cuda::launch_fill_codes({.data = forward_->kv_cache(),
                                 .size_bytes = size_bytes,
                                 .num_codes = num_exponents * spec_.attention.cache_k_dim(),
                                 .num_exponents = num_exponents,
                                 .seed = seed},
                                stream_));
  } else {
    NANOCP_RETURN_IF_ERROR(
        cuda::launch_fill_dummy(forward_->kv_cache(), size_bytes / 2, 1.0F, seed, stream_));
  }
  return wait_stream();
}

void CudaInstance::disconnect() {
  graphs_.clear();
  forward_.reset();
  image_.reset();
  masks_.reset();
}

// Everything of a step but its answer: no rows are real, so nothing is stored or sent.
// A graph has its kernels loaded when it is made. Over a link no kernel waits for another GPU.
Status CudaInstance::load_kernels() {
  if (link_ != nullptr) return ok_status();
  const int64_t small_rows = std::min(options_.max_rows, options_.max_graph_rows);
  for (const int64_t rows : graph_buckets(options_.max_rows, options_.max_rows)) {
    const StepShape shape = {.rows = rows, .samples = rows, .has_prefill = rows > small_rows};
    NANOCP_ASSIGN_OR_RETURN(const auto dropped, graph::StepGraph::capture([&](cudaStream_t stream) {
                              return forward_->enqueue(shape, stream);
                            }));
    static_cast<void>(dropped);
  }
  return cuda_status(cudaDeviceSynchronize(), "loading kernels");
}

Status CudaInstance::run_largest_step() {
  scheduler::StepPlan plan;
  plan.instances.resize(static_cast<size_t>(options_.num_instances));
  for (auto& instance : plan.instances) instance.reset(options_.num_instances);
  image_->fill(++step_, plan, 0);
  NANOCP_RETURN_IF_ERROR(begin_exchanges(plan));
  NANOCP_RETURN_IF_ERROR(image_->upload(stream_));
  NANOCP_RETURN_IF_ERROR(
      forward_->enqueue({.rows = options_.max_rows, .samples = options_.max_rows}, stream_));
  return wait_stream();
}

CudaInstance::Memory CudaInstance::memory() const {
  int current = 0;
  static_cast<void>(cudaGetDevice(&current));
  static_cast<void>(cudaSetDevice(device_));
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  static_cast<void>(cudaMemGetInfo(&free_bytes, &total_bytes));
  static_cast<void>(cudaSetDevice(current));
  const int64_t num_graphs =
      options_.use_graphs
          ? static_cast<int64_t>(graph_buckets(options_.max_rows, options_.max_graph_rows).size())
          : 0;
  return {.total_bytes = static_cast<int64_t>(total_bytes),
          .free_bytes = static_cast<int64_t>(free_bytes),
          .weight_bytes = weights_->arena.total_bytes(),
          .graph_reserve_bytes = num_graphs * spec_.num_layers * kGraphBytesPerLayer};
}

Status CudaInstance::capture() {
  const SteadyClock clock;
  const int64_t start_us = clock.now_us();
  const int64_t free_before = memory().free_bytes;
  for (const int64_t rows : graph_buckets(options_.max_rows, options_.max_graph_rows)) {
    NANOCP_ASSIGN_OR_RETURN(graphs_[rows], graph::StepGraph::capture([&](cudaStream_t stream) {
                              return forward_->enqueue({.rows = rows, .samples = rows}, stream);
                            }));
    exchange_orders_[rows] = forward_->exchanges();
    capture_nodes_ = std::max(capture_nodes_, graphs_[rows]->num_nodes());
  }
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaDeviceSynchronize(), "capturing graphs"));
  capture_us_ = clock.now_us() - start_us;
  capture_bytes_ = free_before - memory().free_bytes;
  return ok_status();
}

std::string CudaInstance::describe_capture() const {
  char text[160];
  std::snprintf(text, sizeof(text),
                "captured %zu step graphs of up to %zu nodes in %.1f s, %.0f MiB on each GPU",
                graphs_.size(), capture_nodes_, static_cast<double>(capture_us_) / 1e6,
                static_cast<double>(capture_bytes_) / (1024.0 * 1024.0));
  return text;
}

bool CudaInstance::is_graph_step() const {
  return !graphs_.empty() && image_->num_rows() <= graphs_.rbegin()->first;
}

// Steps of few rows attend row by row, whether they run as graphs or not.
void CudaInstance::fill_image(const scheduler::StepPlan& plan) {
  const int32_t rows = plan.instances[static_cast<size_t>(id_)].num_rows();
  const bool is_small = rows <= std::min(options_.max_rows, options_.max_graph_rows);
  image_->fill(++step_, plan, is_small ? 0 : InstanceForward::kPrefillRowsMin);
}

Status CudaInstance::begin_exchanges(const scheduler::StepPlan& plan) {
  return link_ == nullptr ? ok_status() : link_->begin_step(plan.instances, stream_);
}

Status CudaInstance::enqueue_step(const scheduler::StepPlan& plan) {
  NANOCP_CHECK_LT(num_enqueued_ - num_finished_, slots_.size());
  StepSlot& slot = slots_[num_enqueued_ % slots_.size()];
  slot.plan = &plan;
  slot.enqueued_us = SteadyClock().now_us();
  fill_image(plan);
  plan_samples(plan, slot);
  slot.step = step_;
  NANOCP_RETURN_IF_ERROR(begin_exchanges(plan));
  NANOCP_RETURN_IF_ERROR(image_->upload(stream_));
  NANOCP_RETURN_IF_ERROR(masks_->upload(stream_));
  NANOCP_RETURN_IF_ERROR(enqueue_forward());
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMemcpyAsync(slot.readout, forward_->readout(), forward_->readout_bytes(),
                                  cudaMemcpyDeviceToHost, stream_),
                  "copy of sampled tokens"));
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventRecord(slot.done, stream_), "end of a step"));
  ++num_enqueued_;
  return ok_status();
}

Status CudaInstance::enqueue_forward() {
  if (is_graph_step()) {
    return graphs_.lower_bound(std::max(1, image_->num_rows()))->second->launch(stream_);
  }
  return forward_->enqueue({.rows = row_bucket(image_->num_rows(), options_.max_rows),
                            .samples = row_bucket(image_->num_samples(), options_.max_rows),
                            .has_prefill = image_->has_prefill()},
                           stream_);
}

Status CudaInstance::finish_step() {
  NANOCP_CHECK_LT(num_finished_, num_enqueued_);
  const StepSlot& slot = slots_[num_finished_ % slots_.size()];
  ++num_finished_;
  tokens_.clear();
  scored_.clear();
  NANOCP_RETURN_IF_ERROR(wait_for_gpu(slot.step, [&] { return cudaEventQuery(slot.done); }));
  NANOCP_RETURN_IF_ERROR(finish_samples(slot));
  NANOCP_RETURN_IF_ERROR(finish_scores(slot));
  read_times(slot, SteadyClock().now_us());
  return ok_status();
}

void CudaInstance::read_times(const StepSlot& slot, int64_t end_us) {
  duration_us_ = end_us - std::max(slot.enqueued_us, end_us_);
  end_us_ = end_us;
  const size_t num_stamps = forward_->num_stamps();
  if (num_stamps == 0) return;
  const auto* stamps = reinterpret_cast<const uint64_t*>(slot.readout + forward_->stamps_offset());
  idle_us_ = end_ns_ == 0 ? 0.0 : static_cast<double>(stamps[0] - end_ns_) / 1e3;
  end_ns_ = stamps[num_stamps - 1];
  spans_ = forward_->spans_of(stamps);
}

Status CudaInstance::wait_stream() {
  return wait_for_gpu(step_, [this] { return cudaStreamQuery(stream_); });
}

template <typename Poll>
Status CudaInstance::wait_for_gpu(uint64_t step, Poll poll) const {
  const SteadyClock clock;
  const int64_t deadline_us = clock.now_us() + options_.step_timeout_us;
  while (true) {
    const cudaError_t code = poll();
    if (code == cudaSuccess) return ok_status();
    if (code != cudaErrorNotReady) return cuda_status(code, "a step");
    if (link_ != nullptr) NANOCP_RETURN_IF_ERROR(link_->watch());
    if (clock.now_us() > deadline_us) {
      return Error{ErrorCode::kDeadlineExceeded,
                   "instance " + std::to_string(id_) + " waited " +
                       std::to_string(options_.step_timeout_us / 1'000'000) +
                       " s for its GPU to end step " + std::to_string(step)};
    }
  }
}

void CudaInstance::plan_samples(const scheduler::StepPlan& plan, StepSlot& slot) {
  const auto& tasks = plan.sample_tasks[static_cast<size_t>(id_)];
  const size_t num_scores = plan.score_tasks[static_cast<size_t>(id_)].size();
  NANOCP_CHECK_EQ(tasks.size() + num_scores, static_cast<size_t>(image_->num_samples()));
  for (size_t i = 0; i < num_scores; ++i) {
    cuda::SampleSpec& sample = image_->samples()[tasks.size() + i];
    sample = {};
    sample.mode = cuda::SampleMode::kSkip;
  }
  slot.on_host.assign(tasks.size(), false);
  masks_->begin_step();
  for (size_t i = 0; i < tasks.size(); ++i) {
    image_->samples()[i] = sample_spec(tasks[i]);
    slot.on_host[i] = image_->samples()[i].mode == cuda::SampleMode::kSkip;
  }
}

cuda::SampleSpec CudaInstance::sample_spec(const scheduler::SampleTask& task) {
  const SamplingParams& params = task.sequence->request.sampling;
  cuda::SampleSpec sample;
  sample.mode = cuda::SampleMode::kSkip;
  if (!is_for_gpu(params)) return sample;
  if (params.allowed_tokens != nullptr) {
    sample.allowed = masks_->add(*params.allowed_tokens);
    if (sample.allowed == nullptr) return sample;
  }
  sample.mode = is_greedy(params) ? cuda::SampleMode::kGreedy : cuda::SampleMode::kDraw;
  if (sample.mode == cuda::SampleMode::kDraw) {
    sample.temperature = params.temperature;
    sample.random_bits = counter_random(params.seed, static_cast<uint64_t>(task.output_index));
  }
  return sample;
}

// Logits are still those of this step: nothing is launched behind a step whose logits are needed.
Status CudaInstance::finish_samples(const StepSlot& slot) {
  const auto& tasks = slot.plan->sample_tasks[static_cast<size_t>(id_)];
  const auto* tokens = reinterpret_cast<const int32_t*>(slot.readout);
  for (size_t i = 0; i < tasks.size(); ++i) {
    engine::SampledToken token;
    token.sequence = tasks[i].sequence->id;
    token.token = tokens[i];
    if (slot.on_host[i] || options_.keep_logits) {
      NANOCP_RETURN_IF_ERROR(copy_logits(i, 1));
      if (options_.keep_logits) token.details.make().logits = host_logits_;
    }
    if (slot.on_host[i]) sample_on_host(tasks[i], token);
    tokens_.push_back(std::move(token));
  }
  return ok_status();
}

// Of some rows in sample order, to host_logits_.
Status CudaInstance::copy_logits(size_t first, size_t num_rows) {
  const auto vocab = static_cast<size_t>(spec_.vocab_size);
  host_logits_.resize(num_rows * vocab);
  const auto stride = static_cast<size_t>(forward_->logits_stride());
  return cuda_status(
      cudaMemcpy2D(host_logits_.data(), vocab * sizeof(float), forward_->logits() + first * stride,
                   stride * sizeof(float), vocab * sizeof(float), num_rows, cudaMemcpyDeviceToHost),
      "copy of logits");
}

// Behind the samples come the rows that are scored.
Status CudaInstance::finish_scores(const StepSlot& slot) {
  constexpr size_t kRowsMax = 64;  // at a time
  const auto vocab = static_cast<size_t>(spec_.vocab_size);
  const size_t num_samples = slot.plan->sample_tasks[static_cast<size_t>(id_)].size();
  const auto& tasks = slot.plan->score_tasks[static_cast<size_t>(id_)];
  for (size_t first = 0; first < tasks.size(); first += kRowsMax) {
    const size_t count = std::min(kRowsMax, tasks.size() - first);
    NANOCP_RETURN_IF_ERROR(copy_logits(num_samples + first, count));
    for (size_t i = 0; i < count; ++i) {
      const scheduler::ScoreTask& task = tasks[first + i];
      scored_.push_back({.sequence = task.sequence->id,
                         .position = task.position,
                         .score = ops::score(std::span(host_logits_).subspan(i * vocab, vocab),
                                             task.sequence->token(task.position),
                                             task.sequence->request.num_prompt_logprobs)});
    }
  }
  return ok_status();
}

void CudaInstance::sample_on_host(const scheduler::SampleTask& task, engine::SampledToken& token) {
  const request::Sequence& sequence = *task.sequence;
  const SamplingParams& params = sequence.request.sampling;
  const uint64_t random_bits =
      counter_random(params.seed, static_cast<uint64_t>(task.output_index));
  ops::SampledChoice choice =
      ops::sample(host_logits_, params, {sequence.request.prompt, sequence.output}, random_bits);
  token.token = choice.token;
  token.logprob = choice.logprob;
  if (!choice.top_logprobs.empty()) {
    token.details.make().top_logprobs = std::move(choice.top_logprobs);
  }
}

void CudaInstance::collect(engine::StepResult& result) {
  std::move(tokens_.begin(), tokens_.end(), std::back_inserter(result.tokens));
  std::move(scored_.begin(), scored_.end(), std::back_inserter(result.scored));
  result.duration_us = std::max(result.duration_us, duration_us_);
  if (options_.profile) result.spans.push_back(std::move(spans_));
  if (options_.profile || options_.time_steps) result.idle_us.push_back(idle_us_);
}

}  // namespace nanocp::runner
