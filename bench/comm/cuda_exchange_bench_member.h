// One instance of cuda_exchange_bench: its buffers, the kernels of an exchange, and their time.
#pragma once

#include <algorithm>
#include <barrier>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/device_arena.h"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/expert_plan.h"
#include "backend/cuda/mla_decode.h"
#include "backend/cuda/shard_exchange.h"
#include "backend/cuda/weight_ops.h"
#include "bench/comm/cuda_exchange_check_heaps.h"
#include "graph/step_graph.h"
#include "runner/cuda/step_image.h"

namespace nanocp {
namespace {

using bench::must;
using bench::must_cuda;

constexpr int kIterations = 32;  // chained in one graph
constexpr int kLaunches = 30;
constexpr int kContext = 64;  // tokens of a row on each GPU: next to nothing to attend
constexpr int kBlockSize = 64;
constexpr int64_t kNumBlocks = 512;

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

comm::ExchangeCapacity capacity_of(const Shape& shape, int32_t instances, int32_t max_rows) {
  const int64_t token_values =
      shape.num_kv_heads == 0 ? shape.k_dim : int64_t{2} * shape.num_kv_heads * shape.k_dim;
  return {.num_instances = instances,
          .max_rows = max_rows,
          .hidden = shape.hidden,
          .topk = shape.topk,
          .num_heads = shape.num_heads,
          .query_values = shape.num_heads * shape.k_dim,
          .partial_values = shape.num_heads * shape.v_dim,
          .kv_cache_bytes = kNumBlocks * kBlockSize * token_values * 2};
}

// The first expert of an instance: expert e is on instance e * instances / experts.
int32_t first_expert(int32_t instance, int32_t instances, int32_t num_experts) {
  return (instance * num_experts + instances - 1) / instances;
}

// Everything of one instance. Used by its thread, on whose current GPU it is.
class Member {
 public:
  Member(const Shape& shape, const cuda::ExchangeView& exchange, const scheduler::StepPlan& plan)
      : id_(exchange.self),
        num_instances_(exchange.num_instances),
        shape_(shape),
        exchange_(exchange),
        arena_("the benchmark") {
    must_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    image_ = must(runner::StepImage::create({.self = id_,
                                             .num_instances = num_instances_,
                                             .max_rows = exchange.max_rows,
                                             .num_blocks = kNumBlocks}));
    image_->fill(1, plan);
    must(image_->upload(stream_));
    rows_ = image_->num_rows();
    must_cuda(cudaMemcpy(&heap_, exchange.base + id_, sizeof(heap_), cudaMemcpyDeviceToHost));
    allocate();
    must_cuda(cudaDeviceSynchronize());
  }

  // Median time of an iteration of `enqueue(iteration)` in microseconds. All meet before the
  // captures, which bear no allocation beside them, before the first launch and behind the last:
  // what is made or freed may wait for all kernels of a GPU.
  double time(const std::function<void(int, cudaStream_t)>& enqueue, std::barrier<>& meet) {
    meet.arrive_and_wait();
    auto graph = must(graph::StepGraph::capture([&](cudaStream_t stream) -> Status {
      for (int i = 0; i < kIterations; ++i) enqueue(i, stream);
      next_step_kernel<<<1, 1, 0, stream>>>(const_cast<uint64_t*>(&image_->device().header->step));
      return ok_status();
    }));
    cudaEvent_t begin, end;
    must_cuda(cudaEventCreate(&begin));
    must_cuda(cudaEventCreate(&end));
    std::vector<float> times;
    meet.arrive_and_wait();
    for (int launch = 0; launch < kLaunches; ++launch) {
      must_cuda(cudaEventRecord(begin, stream_));
      must(graph->launch(stream_));
      must_cuda(cudaEventRecord(end, stream_));
      must_cuda(cudaEventSynchronize(end));
      float ms = 0.0F;
      must_cuda(cudaEventElapsedTime(&ms, begin, end));
      if (launch >= 5) times.push_back(ms * 1000.0F / kIterations);
    }
    meet.arrive_and_wait();
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
                                   .expert_begin = expert_begin(id_),
                                   .num_experts = num_local_experts(),
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
    const int64_t all = (1 + num_instances_) * rows;
    logits_ = must(arena_.take<float>(rows * shape_.num_experts));
    std::vector<float> logits(static_cast<size_t>(rows * shape_.num_experts));
    for (float& value : logits) value = static_cast<float>(std::rand()) / RAND_MAX;
    must_cuda(cudaMemcpy(logits_, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice));
    const auto sizes = cuda::expert_plan_sizes(exchange_, num_local_experts(), 8);
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
  int32_t expert_begin(int32_t instance) const {
    return first_expert(instance, num_instances_, shape_.num_experts);
  }
  int32_t num_local_experts() const { return expert_begin(id_ + 1) - expert_begin(id_); }
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
    args.config.max_rows = exchange_.max_rows * num_instances_;
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

  const int32_t id_;
  const int32_t num_instances_;
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

}  // namespace
}  // namespace nanocp
