// Exchange over NVLink between two GPUs of this host, inside CUDA graphs of chained iterations:
// dispatch, plan and combine of expert rows, and what a shard exchange adds to a layer's attention.
// Times are of the slower GPU, per iteration. Usage: cuda_exchange_bench --time
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/device_arena.h"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/expert_plan.h"
#include "backend/cuda/mla_decode.h"
#include "backend/cuda/shard_exchange.h"
#include "backend/cuda/weight_ops.h"
#include "comm/nvlink/symmetric_heap.h"
#include "graph/step_graph.h"
#include "runner/cuda/step_image.h"

namespace nanocp {
namespace {

constexpr int kNumGpus = 2;
constexpr int kIterations = 32;  // chained in one graph
constexpr int kLaunches = 30;
constexpr int kContext = 64;  // tokens of a row on each GPU: next to nothing to attend
constexpr int kBlockSize = 64;
constexpr int64_t kNumBlocks = 512;

template <typename T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "error: %s\n", result.error().message.c_str());
  std::exit(1);
}
void must_cuda(cudaError_t code) {
  must(cuda::cuda_status(code, "CUDA"));
}

__global__ void next_step_kernel(uint64_t* step) {
  ++*step;
}

struct Shape {
  const char* name;
  int32_t hidden;
  int32_t num_experts;
  int32_t topk;
  int32_t num_heads;
  int32_t num_kv_heads;  // 0: latent attention
  int32_t k_dim;
  int32_t v_dim;
};

constexpr Shape kQwen = {"Qwen3-30B-A3B", 2048, 128, 8, 32, 4, 128, 128};
constexpr Shape kDeepseek = {"DeepSeek-V3", 7168, 256, 8, 128, 0, 576, 512};

comm::ExchangeCapacity capacity_of(const Shape& shape, int32_t max_rows) {
  const int64_t token_values =
      shape.num_kv_heads == 0 ? shape.k_dim : int64_t{2} * shape.num_kv_heads * shape.k_dim;
  return {.num_instances = kNumGpus,
          .max_rows = max_rows,
          .hidden = shape.hidden,
          .topk = shape.topk,
          .num_heads = shape.num_heads,
          .query_values = shape.num_heads * shape.k_dim,
          .partial_values = shape.num_heads * shape.v_dim,
          .kv_cache_bytes = kNumBlocks * kBlockSize * token_values * 2};
}

// Rows of every instance; `split`: each is attended on both.
scheduler::StepPlan make_plan(int32_t rows, bool split, std::vector<int32_t>& blocks,
                              std::vector<int32_t>& block_idx) {
  blocks.resize(2 * static_cast<size_t>(rows));
  block_idx.assign(blocks.size(), 0);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  scheduler::StepPlan plan;
  plan.instances.resize(kNumGpus);
  for (auto& instance : plan.instances) instance.reset(kNumGpus);
  const auto item = [&](InstanceId source, int32_t row, int32_t block) {
    return AttentionItem{
        source,
        row,
        1,
        kContext - 1,
        1,
        std::span<const int32_t>(blocks).subspan(static_cast<size_t>(block), 1),
        std::span<const int32_t>(block_idx).subspan(static_cast<size_t>(block), 1)};
  };
  for (InstanceId i = 0; i < kNumGpus; ++i) {
    InstancePlan& own = plan.instances[static_cast<size_t>(i)];
    InstancePlan& other = plan.instances[static_cast<size_t>(1 - i)];
    for (int32_t row = 0; row < rows; ++row) {
      own.token_ids.push_back(row);
      own.positions.push_back(kContext - 1);
      own.appends.push_back({i, row, int64_t{row} * kBlockSize + kContext - 1});
      own.items.push_back(item(i, row, row));
      if (!split) continue;
      own.query_sends.add(1 - i, row);
      ++other.num_query_receives[static_cast<size_t>(i)];
      other.items.push_back(item(i, row, rows + row));
    }
  }
  return plan;
}

// Everything of one GPU. Used by its thread.
class Gpu {
 public:
  Gpu(int id, const Shape& shape, const cuda::ExchangeView& exchange,
      const scheduler::StepPlan& plan)
      : id_(id), shape_(shape), exchange_(exchange), arena_("the benchmark") {
    must_cuda(cudaSetDevice(id));
    must_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    image_ = must(runner::StepImage::create({.self = id,
                                             .num_instances = kNumGpus,
                                             .max_rows = exchange.max_rows,
                                             .num_blocks = kNumBlocks}));
    image_->fill(1, plan);
    must(image_->upload(stream_));
    rows_ = image_->num_rows();
    must_cuda(cudaMemcpy(&heap_, exchange.base + id, sizeof(heap_), cudaMemcpyDeviceToHost));
    allocate();
    must_cuda(cudaDeviceSynchronize());
  }

  // Median time of an iteration of `enqueue(iteration)` in microseconds.
  double time(const std::function<void(int, cudaStream_t)>& enqueue) {
    auto graph = must(graph::StepGraph::capture([&](cudaStream_t stream) -> Status {
      for (int i = 0; i < kIterations; ++i) enqueue(i, stream);
      next_step_kernel<<<1, 1, 0, stream>>>(const_cast<uint64_t*>(&image_->device().header->step));
      return ok_status();
    }));
    cudaEvent_t begin, end;
    must_cuda(cudaEventCreate(&begin));
    must_cuda(cudaEventCreate(&end));
    std::vector<float> times;
    for (int launch = 0; launch < kLaunches; ++launch) {
      must_cuda(cudaEventRecord(begin, stream_));
      must(graph->launch(stream_));
      must_cuda(cudaEventRecord(end, stream_));
      must_cuda(cudaEventSynchronize(end));
      float ms = 0.0F;
      must_cuda(cudaEventElapsedTime(&ms, begin, end));
      if (launch >= 5) times.push_back(ms * 1000.0F / kIterations);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  void dispatch(int iteration, cudaStream_t stream) {
    const cuda::ExchangeEpoch epoch = {&image_->device().header->step, kIterations, iteration};
    const ops::RouterSpec router = {.renormalize = true, .topk = shape_.topk};
    must(cuda::launch_gate_dispatch({.step = image_->device(),
                                     .exchange = exchange_,
                                     .epoch = epoch,
                                     .rows = rows_,
                                     .router = router,
                                     .num_experts = shape_.num_experts,
                                     .logits = logits_,
                                     .counter = counters_},
                                    stream));
    must(cuda::launch_expert_plan({.exchange = exchange_,
                                   .epoch = epoch,
                                   .expert_begin = id_ * shape_.num_experts / kNumGpus,
                                   .num_experts = shape_.num_experts / kNumGpus,
                                   .tile_rows = 8,
                                   .overlaps = true,
                                   .lists = lists_},
                                  stream));
  }

  void combine(int iteration, cudaStream_t stream) {
    const cuda::ExchangeEpoch epoch = {&image_->device().header->step, kIterations, iteration};
    must(cuda::launch_combine({.step = image_->device(),
                               .exchange = exchange_,
                               .epoch = epoch,
                               .num_experts = shape_.num_experts,
                               .y = y_,
                               .assignment_of = lists_.assignment_of,
                               .norm_weight = norm_,
                               .eps = 1e-6F,
                               .residual = residual_,
                               .x = heap_ + exchange_.offsets.dispatch_x +
                                    int64_t{id_} * exchange_.max_rows * shape_.hidden * 2},
                              stream));
  }

  void attend(int iteration, cudaStream_t stream) {
    const cuda::ExchangeEpoch epoch = {&image_->device().header->step, kIterations, iteration};
    if (shape_.num_kv_heads == 0) {
      must(cuda::launch_send_queries({.step = image_->device(),
                                      .exchange = exchange_,
                                      .epoch = epoch,
                                      .rows = rows_,
                                      .counter = counters_ + 2},
                                     stream));
    } else {
      must(cuda::launch_prepare_gqa({.step = image_->device(),
                                     .exchange = exchange_,
                                     .epoch = epoch,
                                     .rows = rows_,
                                     .num_heads = shape_.num_heads,
                                     .num_kv_heads = shape_.num_kv_heads,
                                     .head_dim = shape_.k_dim,
                                     .qkv = qkv_,
                                     .qkv_stride = qkv_values(),
                                     .rotary = {.frequencies = norm_, .rotary_dim = shape_.k_dim},
                                     .cache = cache_layout(),
                                     .counter = counters_ + 2},
                                    stream));
    }
    must(shape_.num_kv_heads == 0 ? cuda::launch_mla_decode(mla_args(epoch), stream)
                                  : cuda::launch_attention_decode(gqa_args(epoch), stream));
    must(cuda::launch_finish_attention({.step = image_->device(),
                                        .exchange = exchange_,
                                        .epoch = epoch,
                                        .rows = rows_,
                                        .out = out_,
                                        .lse = lse_,
                                        .merged = merged_,
                                        .counter = counters_ + 3},
                                       stream));
  }

  void schedule() {
    must(shape_.num_kv_heads == 0 ? cuda::launch_mla_schedule(mla_args(), stream_)
                                  : cuda::launch_attention_schedule(gqa_args(), stream_));
    must_cuda(cudaStreamSynchronize(stream_));
  }

 private:
  void allocate() {
    const int64_t rows = exchange_.max_rows;
    const int64_t all = (1 + kNumGpus) * rows;
    logits_ = must(arena_.take<float>(rows * shape_.num_experts));
    std::vector<float> logits(static_cast<size_t>(rows * shape_.num_experts));
    for (float& value : logits) value = static_cast<float>(std::rand()) / RAND_MAX;
    must_cuda(cudaMemcpy(logits_, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice));
    const auto sizes = cuda::expert_plan_sizes(exchange_, shape_.num_experts / kNumGpus, 8);
    lists_.row_of = must(arena_.take<int32_t>(sizes.max_assignments));
    lists_.assignment_of = must(arena_.take<int32_t>(sizes.max_assignments));
    lists_.tiles = must(arena_.take<cuda::TokenTile>(sizes.max_tiles));
    lists_.num_tiles = must(arena_.take<int32_t>(1));
    y_ = must(arena_.take<uint16_t>(sizes.max_assignments * shape_.hidden));
    residual_ = must(arena_.take<float>(rows * shape_.hidden));
    norm_ = must(arena_.take<float>(shape_.hidden));
    counters_ = must(arena_.take<uint32_t>(64));
    qkv_ = must(arena_.take<uint16_t>(rows * qkv_values()));
    out_ = must(arena_.take<float>(all * exchange_.partial_values));
    lse_ = must(arena_.take<float>(all * shape_.num_heads));
    merged_ = must(arena_.take<uint16_t>(rows * exchange_.partial_values));
    const size_t bytes = shape_.num_kv_heads == 0
                             ? must(cuda::mla_decode_workspace_bytes(mla_args().config))
                             : must(cuda::attention_decode_workspace_bytes(gqa_args().config));
    workspace_ = must(arena_.take<uint8_t>(static_cast<int64_t>(bytes)));
    must(cuda::launch_fill_dummy(qkv_, rows * qkv_values(), 1.0F, 1, stream_));
  }
  int64_t qkv_values() const {
    return int64_t{shape_.num_heads + 2 * shape_.num_kv_heads} * shape_.k_dim;
  }
  cuda::CacheLayout cache_layout() const {
    cuda::CacheLayout cache;
    cache.block_size = kBlockSize;
    cache.head_stride = int64_t{kBlockSize} * shape_.k_dim;
    cache.block_stride = cache.head_stride * std::max(1, shape_.num_kv_heads);
    cache.k_offset = exchange_.offsets.kv_cache;
    cache.v_offset = cache.k_offset + kNumBlocks * cache.block_stride * 2;
    return cache;
  }
  template <typename Args>
  void fill_args(Args& args, const cuda::ExchangeEpoch& epoch) const {
    args.config.num_heads = shape_.num_heads;
    args.config.block_size = kBlockSize;
    args.config.softmax_scale = 0.1F;
    args.config.max_rows = exchange_.max_rows * kNumGpus;
    args.rows = image_->device().attention_rows;
    args.num_rows = image_->device().num_attention_rows;
    args.blocks = image_->device().blocks;
    args.block_idx = image_->device().block_idx;
    args.q = heap_ + exchange_.offsets.query;
    args.block_stride = cache_layout().block_stride;
    args.out = out_;
    args.lse = lse_;
    args.workspace = workspace_;
    args.exchange = exchange_;
    args.epoch = epoch;
  }
  cuda::AttentionDecodeArgs gqa_args(const cuda::ExchangeEpoch& epoch = {}) const {
    cuda::AttentionDecodeArgs args = {};
    fill_args(args, epoch);
    args.config.num_kv_heads = shape_.num_kv_heads;
    args.config.head_dim = shape_.k_dim;
    args.k = heap_ + cache_layout().k_offset;
    args.v = heap_ + cache_layout().v_offset;
    args.head_stride = cache_layout().head_stride;
    return args;
  }
  cuda::MlaDecodeArgs mla_args(const cuda::ExchangeEpoch& epoch = {}) const {
    cuda::MlaDecodeArgs args = {};
    fill_args(args, epoch);
    args.cache = heap_ + cache_layout().k_offset;
    return args;
  }

  const int id_;
  const Shape shape_;
  const cuda::ExchangeView exchange_;
  cuda::DeviceArena arena_;
  std::unique_ptr<runner::StepImage> image_;
  cudaStream_t stream_ = nullptr;
  uint8_t* heap_ = nullptr;
  int32_t rows_ = 0;
  float* logits_ = nullptr;
  cuda::ExpertLists lists_ = {};
  uint16_t* y_ = nullptr;
  float* residual_ = nullptr;
  float* norm_ = nullptr;
  uint32_t* counters_ = nullptr;
  uint16_t* qkv_ = nullptr;
  float* out_ = nullptr;
  float* lse_ = nullptr;
  uint16_t* merged_ = nullptr;
  uint8_t* workspace_ = nullptr;
};

enum class Part { kDispatch, kDispatchAndCombine, kAttention };

// Runs the same on both GPUs, each from its own thread; the slower one's time.
double time_on_all(const Shape& shape, int32_t rows, Part part, bool split = false) {
  std::vector<int32_t> blocks, block_idx;
  const scheduler::StepPlan plan = make_plan(rows, split, blocks, block_idx);
  const auto group =
      must(comm::NvlinkGroup::create({.devices = {0, 1},
                                      .capacity = capacity_of(shape, std::max(rows, 8)),
                                      .timeout_us = 5'000'000}));
  double slowest = 0.0;
  std::vector<double> times(kNumGpus);
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumGpus; ++i) {
    threads.emplace_back([&, i] {
      Gpu gpu(i, shape, group->view(i), plan);
      if (part == Part::kAttention) gpu.schedule();
      times[static_cast<size_t>(i)] = gpu.time([&](int iteration, cudaStream_t stream) {
        if (part == Part::kAttention) return gpu.attend(iteration, stream);
        gpu.dispatch(iteration, stream);
        if (part == Part::kDispatchAndCombine) gpu.combine(iteration, stream);
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  must(group->failure());
  for (const double time : times) slowest = std::max(slowest, time);
  return slowest;
}

int run_times() {
  for (const Shape& shape : {kDeepseek, kQwen}) {
    for (const int32_t rows : {1, 8, 32, 64, 128}) {
      std::printf(
          "time  dispatch, plan, combine: %3d rows of %d values per GPU: %6.1f us, without the "
          "combine %5.1f\n",
          rows, shape.hidden, time_on_all(shape, rows, Part::kDispatchAndCombine),
          time_on_all(shape, rows, Part::kDispatch));
    }
  }
  for (const Shape& shape : {kQwen, kDeepseek}) {
    for (const int32_t rows : {1, 4, 16}) {
      const double local = time_on_all(shape, rows, Part::kAttention);
      const double split = time_on_all(shape, rows, Part::kAttention, true);
      std::printf(
          "time  shard exchange, %s, %2d rows per GPU: %6.1f us, without %5.1f, adds %5.1f\n",
          shape.name, rows, split, local, split - local);
    }
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // a run that is cut off leaves what it had
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::run_times();
  std::fprintf(stderr, "usage: %s --time\n", argv[0]);
  return 1;
}
