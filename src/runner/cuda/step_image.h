// Turns a StepPlan into the tables that one instance's kernels read (backend/cuda/device_step.h):
// filled in pinned host memory, copied to fixed addresses on the GPU. Owned by the instance; its
// thread, with its device current. Two host copies are filled in turn, so that a step can be filled
// and put behind the one that runs. One may be filled again when the step that was uploaded from it
// is over.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cuda/attention_prefill.h"
#include "backend/cuda/device_step.h"
#include "backend/cuda/sampling.h"
#include "base/result.h"
#include "scheduler/step_plan.h"

namespace nanocp::runner {

struct StepCapacity {
  InstanceId self = 0;
  int32_t num_instances = 1;
  int32_t max_rows = 0;    // own rows of one instance in one step
  int64_t num_blocks = 0;  // of this instance's KV cache
  // Not negative: K/V of own row r that another instance holds is first stored in slot r + this of
  // the own cache; a link takes it from there.
  int64_t kv_staging_slot = -1;
};

class StepImage {
 public:
  static Result<std::unique_ptr<StepImage>> create(const StepCapacity& capacity);
  ~StepImage();
  StepImage(const StepImage&) = delete;
  StepImage& operator=(const StepImage&) = delete;

  // Rewrites the older host copy for step number `step` (from 1) of `plan`; what is read or
  // uploaded from now on is this one. Items of at least `prefill_rows_min` rows become prefill
  // items, all others are attended row by row; 0: all are.
  void fill(uint64_t step, const scheduler::StepPlan& plan, int32_t prefill_rows_min = 0);
  // How the rows in sample order are sampled on the GPU, [num_samples]; filled by the caller.
  cuda::SampleSpec* samples() const { return host_.samples; }
  Status upload(cudaStream_t stream);

  const cuda::DeviceStep& device() const { return device_.step; }
  const cuda::SampleSpec* device_samples() const { return device_.samples; }
  const cuda::PrefillItem* prefill_items() const { return device_.prefill; }
  const int32_t* num_prefill_items() const { return device_.num_prefill; }
  bool has_prefill() const { return *host_.num_prefill > 0; }
  // The number of an exchange in the step that was filled last.
  uint64_t epoch_number(const cuda::ExchangeEpoch& epoch) const {
    return (host_.header->step - 1) * static_cast<uint64_t>(epoch.per_step) +
           static_cast<uint64_t>(epoch.index) + 1;
  }
  int32_t num_rows() const { return host_.header->num_rows; }
  int32_t num_samples() const { return host_.header->num_samples; }
  int64_t device_bytes() const { return static_cast<int64_t>(copy_bytes()); }

 private:
  // The same members point into the host copy or into the GPU's.
  struct Tables {
    cuda::StepHeader* header;
    int32_t* num_attention_rows;
    int32_t* num_prefill;
    int32_t* token_ids;
    int32_t* positions;
    cuda::KvTarget* kv_targets;
    int32_t* sample_rows;
    cuda::SampleSpec* samples;
    cuda::QuerySend* sends;
    int32_t* num_sent;
    int32_t* num_received;
    int32_t* merge_begin;
    cuda::MergeEntry* merges;
    cuda::AttentionRow* attention_rows;
    cuda::PrefillItem* prefill;
    int32_t* blocks;
    int32_t* block_idx;
    cuda::DeviceStep step;  // views of the above
  };

  explicit StepImage(const StepCapacity& capacity) : capacity_(capacity) {}
  size_t lay_out(uint8_t* base, Tables& tables) const;
  void use_copy(size_t copy);
  size_t block_bytes() const { return static_cast<size_t>(capacity_.num_blocks) * sizeof(int32_t); }
  static constexpr size_t kNumHostCopies = 2;
  size_t copy_bytes() const { return table_bytes_ + 2 * block_bytes(); }
  void fill_rows(const InstancePlan& own);
  void fill_kv_targets(const scheduler::StepPlan& plan);
  void fill_sends(const InstancePlan& own);
  void fill_attention(const InstancePlan& own);
  void add_item(const AttentionItem& item);

  const StepCapacity capacity_;
  uint8_t* host_memory_ = nullptr;  // pinned, [kNumHostCopies] of copy_bytes()
  uint8_t* device_memory_ = nullptr;
  size_t table_bytes_ = 0;     // of each copy: tables, then blocks, then block_idx
  size_t current_ = 0;         // host copy
  uint8_t* source_ = nullptr;  // its memory
  Tables host_ = {};           // its tables
  Tables device_ = {};
  int32_t num_blocks_used_ = 0;
  int32_t prefill_rows_min_ = 0;
  std::vector<bool> has_item_;  // of own rows
};

}  // namespace nanocp::runner
