// One instance's end of an NcclGroup: enqueues the sends and receives of an exchange on the
// instance's stream and keeps watch over how far the exchanges of all instances have come. Owned by
// the group, used by the instance's thread with its device current; begun() by any.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "comm/nccl/nccl_group.h"

namespace nanocp::comm {

class NcclLink final : public ExchangeLink {
 public:
  struct Place {
    InstanceId self = 0;
    ncclComm_t comm = nullptr;       // null: the only instance
    uint8_t* heap = nullptr;         // of this instance
    std::vector<uint8_t*> outboxes;  // [num_instances], null for the own one
    cuda::ExchangeView view;         // of this instance
    int64_t kv_row_bytes = 0;        // of one token in one layer
    int64_t kv_staging_slot = 0;     // K/V of own row r that another instance holds is at r + this
    int64_t timeout_us = 0;
  };
  // Takes buffers and events on the current device. Requires: `group` outlives the link.
  static Result<std::unique_ptr<NcclLink>> create(NcclGroup& group, const Place& place);
  ~NcclLink() override;
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  Status begin_step(std::span<const InstancePlan> plans, cudaStream_t stream) override;
  bool moves(cuda::WaitPurpose purpose) const override { return rows(purpose).any; }
  Status carry(cuda::WaitPurpose purpose, uint64_t epoch, const cuda::CacheRows& cache,
               cudaStream_t stream) override;
  Status watch() override;

  // The last exchange, counted from 1 over the group's life, that the GPU is known to have come to.
  uint64_t begun() const { return begun_.load(std::memory_order_relaxed); }

 private:
  // Exchanges that may be enqueued beyond the last one the GPU is known to have come to. Calls that
  // enqueue would wait without a deadline once the GPU's queue is full; this stays far below.
  static constexpr uint64_t kAheadMax = 8;
  static constexpr size_t kRing = 16;

  struct Exchange {
    cudaEvent_t event = nullptr;  // ahead of the sends and receives
    bool is_recorded = false;     // false: nothing moved
    cuda::WaitPurpose purpose = cuda::WaitPurpose::kQuery;
    uint64_t epoch = 0;
    std::vector<bool> partners;  // [num_instances] that send or receive here
  };
  // To and from each instance in the step that is being enqueued.
  struct Rows {
    std::vector<int32_t> sent;
    std::vector<int32_t> received;
    bool any = false;
  };
  struct Tables {
    cuda::RowCount* row_counts;  // [2, num_instances] of the dispatch, as ExchangeOffsets says
    int64_t* sent_slots;         // [max_rows] staging slots, by destination
    int64_t* received_slots;     // [num_instances * max_rows] cache slots, by source
  };

  NcclLink(NcclGroup& group, const Place& place) : group_(group), place_(place) {}
  Status allocate();
  Tables lay_out(uint8_t* base, size_t* total_bytes) const;
  void count_rows(std::span<const InstancePlan> plans);
  void fill_tables(std::span<const InstancePlan> plans);
  Status upload_tables(cudaStream_t stream);
  Status wait_for_upload();

  // Waits until one more exchange may be enqueued, and counts it.
  Status begin_exchange(cuda::WaitPurpose purpose, uint64_t epoch, cudaStream_t stream);
  Status send_and_receive(cuda::WaitPurpose purpose, uint64_t epoch, cudaStream_t stream);
  Status enqueue_peer(cuda::WaitPurpose purpose, uint64_t epoch, InstanceId peer,
                      cudaStream_t stream);
  Status enqueue_kv(InstanceId peer, cudaStream_t stream);
  // Takes note of exchanges that the GPU has come to.
  Status advance();
  std::string describe_wait() const;
  Exchange& exchange(uint64_t number) { return ring_[number % kRing]; }
  const Exchange& exchange(uint64_t number) const { return ring_[number % kRing]; }
  const Rows& rows(cuda::WaitPurpose purpose) const { return rows_[static_cast<size_t>(purpose)]; }

  NcclGroup& group_;
  const Place place_;
  const SteadyClock clock_;

  std::array<Rows, 4> rows_;  // by purpose
  Rows kv_rows_;
  int64_t num_kv_sent_ = 0;
  int64_t num_kv_received_ = 0;

  uint8_t* host_memory_ = nullptr;  // pinned: tables
  uint8_t* device_memory_ = nullptr;
  size_t table_bytes_ = 0;
  Tables host_ = {};
  Tables device_ = {};
  uint8_t* sent_kv_ = nullptr;      // device, [max_rows, kv_row_bytes], by destination
  uint8_t* received_kv_ = nullptr;  // device, [num_instances * max_rows, kv_row_bytes], by source
  cudaEvent_t uploaded_ = nullptr;

  std::array<Exchange, kRing> ring_ = {};
  uint64_t num_enqueued_ = 0;
  int64_t moved_on_us_ = 0;  // when begun_ last grew, or a step began; 0: none has begun
  std::atomic<uint64_t> begun_{0};
};

}  // namespace nanocp::comm
