// The forward pass of one step on one GPU: every launch of it, in order, on one stream (and a side
// stream that forks from it and joins it). All that varies between steps is read on the GPU from
// the step tables, so the same launches are run as they are or captured once per row count. Owned
// by the instance; its thread, with its device current.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/dense_product.h"
#include "backend/cuda/device_arena.h"
#include "backend/cuda/exchange_view.h"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/expert_mlp.h"
#include "backend/cuda/expert_plan.h"
#include "backend/cuda/mla_decode.h"
#include "backend/cuda/mla_prefill.h"
#include "backend/cuda/shard_exchange.h"
#include "base/result.h"
#include "comm/device/exchange_group.h"
#include "engine/model_runner.h"
#include "model/exchange_order.h"
#include "model/model_spec.h"
#include "runner/cuda/device_weights.h"
#include "runner/cuda/step_image.h"
#include "tensor/kv_format.h"

namespace nanocp::runner {

struct ForwardOptions {
  InstanceId instance = 0;
  int32_t num_instances = 1;
  int32_t max_rows = 0;
  int32_t block_size = 0;
  int64_t num_blocks = 0;  // of the KV cache, with those of the staging slots
  tensor::KvFormat kv_format = tensor::KvFormat::kBf16;
  bool profile = false;
  bool time_steps = false;
  comm::ExchangeLink* link = nullptr;  // null: kernels reach the heaps of peers
};

// How many rows a step is padded to.
struct StepShape {
  int64_t rows;
  int64_t samples;
  bool has_prefill = false;  // there are prefill items; captured graphs serve none
};

using model::ExchangeMark;

class InstanceForward {
 public:
  static Status check_model(const model::ModelSpec& spec);
  // Items of so many rows are worth a prefill kernel.
  static constexpr int32_t kPrefillRowsMin = 8;
  // All references outlive the object.
  static Result<std::unique_ptr<InstanceForward>> create(const model::ModelSpec& spec,
                                                         const DeviceWeights& weights,
                                                         const StepImage& image,
                                                         const cuda::ExchangeView& exchange,
                                                         const ForwardOptions& options);
  ~InstanceForward();
  InstanceForward(const InstanceForward&) = delete;
  InstanceForward& operator=(const InstanceForward&) = delete;

  Status enqueue(const StepShape& shape, cudaStream_t stream);

  void* kv_cache() const { return heap_ + exchange_.offsets.kv_cache; }
  // What the host reads of a step: the sampled tokens, int32 [max_rows], and at stamps_offset() the
  // stamps. Device memory.
  const uint8_t* readout() const { return readout_; }
  size_t readout_bytes() const;
  size_t stamps_offset() const;
  const float* logits() const { return buffers_.logits; }  // device, [max_rows, logits_stride]
  int64_t logits_stride() const { return logits_stride_; }
  // The exchanges of the last enqueue() in order, the same for all shapes and instances.
  const std::vector<ExchangeMark>& exchanges() const { return exchanges_; }
  // Stamps that a step leaves in device memory: the GPU's time (ns) at its start, between phases
  // when options.profile, and at its end; 0 without that and options.time_steps.
  size_t num_stamps() const { return marks_.size(); }
  size_t num_stamps_max() const;
  // What the step with these stamps spent its time on; empty without options.profile.
  std::vector<engine::PhaseSpan> spans_of(const uint64_t* stamps) const;
  int64_t device_bytes() const { return arena_.total_bytes(); }

 private:
  struct Buffers {
    float* residual;          // [max_rows, hidden]
    uint16_t* qkv;            // [max_rows, projection rows]
    uint16_t* q_latent;       // MLA: [max_rows, q_lora_rank]
    uint16_t* q_full;         // MLA with a query latent: [max_rows, heads * (nope + rope)]
    float* attention_out;     // [(1 + instances) * max_rows, heads * v_dim], as the query region
    float* attention_lse;     // [(1 + instances) * max_rows, heads]
    uint16_t* merged;         // [max_rows, heads * v_dim]
    uint16_t* values;         // MLA: [max_rows, heads * v_head_dim]
    uint16_t* attention_sum;  // [max_rows, hidden], after the output projection
    uint16_t* gate_up;        // dense or shared MLP: [max_rows, 2 * intermediate]
    uint16_t* activated;      // [max_rows, intermediate]
    uint16_t* mlp_sum;        // [max_rows, hidden]
    float* router_logits;     // [max_rows, experts]
    uint16_t* expert_hidden;  // [assignments, expert intermediate]
    uint16_t* expert_out;     // [assignments, hidden]
    uint16_t* sampled;        // [max_rows, hidden]
    float* logits;            // [max_rows, vocab]
    int32_t* tokens;          // [max_rows], in readout_
    uint8_t* sampling_workspace;
    uint32_t* counters;  // zeroed words that kernels count blocks in
  };

  // Words of Buffers::counters.
  enum Counter : int { kPrepareCounter, kReturnCounter, kDispatchCounter };

  InstanceForward(const model::ModelSpec& spec, const DeviceWeights& weights,
                  const StepImage& image, const cuda::ExchangeView& exchange,
                  const ForwardOptions& options);
  Status allocate();
  Status allocate_attention();
  Status allocate_mlp();

  // From here on the stream works on `phase`; for profiles.
  Status mark(engine::Phase phase, int32_t layer, cudaStream_t stream);
  // The same for the start or end of the step, whose times are also wanted without a profile.
  Status mark_step(engine::Phase phase, cudaStream_t stream);
  Status stamp(engine::Phase phase, int32_t layer, cudaStream_t stream);
  Status schedule_attention(const StepShape& shape, cudaStream_t stream);
  Status run_layer(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status prepare_gqa(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status prepare_mla(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status absorb_queries(const DeviceLayerWeights& weights, const uint16_t* q, int64_t q_stride,
                        const StepShape& shape, cudaStream_t stream);
  Status attend(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status finish_attention(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status run_dense_mlp(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status run_moe(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status dispatch(int32_t layer, const StepShape& shape, cudaStream_t stream);
  Status run_experts(int32_t layer, cudaStream_t stream);
  Status combine(int32_t layer, cudaStream_t stream);
  Status fork_shared(const DeviceMlp& mlp, const StepShape& shape, cudaStream_t stream);
  Status gated_mlp(const DeviceMlp& mlp, const StepShape& shape, cuda::DenseProducts& products,
                   cudaStream_t stream);
  Status run_head(const StepShape& shape, cudaStream_t stream);
  Status product(const DeviceLinear& w, const void* x, void* out, int64_t rows, bool float_out,
                 cudaStream_t stream);

  cuda::AttentionDecodeArgs decode_args(int32_t layer) const;
  cuda::AttentionPrefillArgs prefill_args(int32_t layer) const;
  cuda::MlaDecodeArgs mla_args(int32_t layer) const;
  cuda::MlaPrefillArgs mla_prefill_args(int32_t layer) const;
  cuda::RotaryView rotary_view() const;
  cuda::CacheLayout cache_layout(int32_t layer) const;
  cuda::CacheRows cache_rows(int32_t layer) const;
  // Over a link, moves the rows that kernels have written for other instances.
  Status carry(cuda::WaitPurpose purpose, int32_t layer, cudaStream_t stream);
  // Launches a kernel that returns rows and works on those that came back: over a link in two
  // parts.
  template <typename Args>
  Status launch_exchange(Status (*launch)(const Args&, cudaStream_t), Args args,
                         cuda::WaitPurpose purpose, int32_t layer, cudaStream_t stream) {
    if (options_.link == nullptr || !options_.link->moves(purpose)) {
      NANOCP_RETURN_IF_ERROR(launch(args, stream));
      return carry(purpose, layer, stream);  // counted, though it moves nothing
    }
    args.part = cuda::ExchangePart::kReturn;
    NANOCP_RETURN_IF_ERROR(launch(args, stream));
    NANOCP_RETURN_IF_ERROR(carry(purpose, layer, stream));
    args.part = cuda::ExchangePart::kMerge;
    return launch(args, stream);
  }
  // The layer's exchange of each kind.
  cuda::ExchangeEpoch shard_epoch(int32_t layer) const;
  cuda::ExchangeEpoch expert_epoch(int32_t layer) const;
  void begin_exchange(ExchangeMark::Kind kind, int32_t index) {
    exchanges_.push_back({kind, index});
  }
  const float* next_norm(int32_t layer) const;
  int32_t tile_rows(int32_t layer) const;  // of a layer with experts
  const cuda::StepHeader* header() const { return image_.device().header; }

  const model::ModelSpec& spec_;
  const DeviceWeights& weights_;
  const StepImage& image_;
  const cuda::ExchangeView exchange_;
  const ForwardOptions options_;
  cuda::DeviceArena arena_;
  uint8_t* heap_ = nullptr;  // of this instance
  void* x_ = nullptr;        // bf16 [max_rows, hidden]: normed rows, where dispatch reads them
  int64_t logits_stride_ = 0;
  Buffers buffers_ = {};
  float* frequencies_ = nullptr;             // of the rotary embedding
  std::vector<void*> attention_workspaces_;  // [layer], shared by layers of one window
  std::vector<int32_t> windows_;             // that occur, each once
  std::vector<void*> window_workspaces_;
  void* prefill_workspace_ = nullptr;  // MLA, all layers
  std::vector<int32_t> moe_index_;     // [layer] number of MoE layers before it
  int32_t num_moe_layers_ = 0;
  int32_t expert_begin_ = 0;  // of the experts owned here
  int32_t num_local_experts_ = 0;
  cuda::ExpertLists lists_ = {};
  std::unique_ptr<cuda::DenseProducts> products_;
  std::unique_ptr<cuda::DenseProducts> side_products_;
  struct Mark {
    engine::Phase phase;
    int32_t layer;
  };
  std::vector<ExchangeMark> exchanges_;
  std::vector<Mark> marks_;     // of one step, the same for all shapes
  uint64_t* stamps_ = nullptr;  // in readout_, GPU time at each mark
  uint8_t* readout_ = nullptr;
  cudaStream_t side_stream_ = nullptr;
  cudaEvent_t fork_ = nullptr;
  cudaEvent_t join_ = nullptr;
};

}  // namespace nanocp::runner
