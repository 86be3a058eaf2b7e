// The GPUs of one process that exchange rows by NCCL's send and receive: for links without peer
// access, and to compare with. Each GPU has its heap, and for every other instance an outbox of the
// heap's layout (without the KV cache) that its kernels store into; NcclLink moves the outboxes.
// Receivers' flags stand at their highest value, since stream order is what they wait by. See
// device/exchange_group.h for ownership and threads, and docs/decisions/0010-nccl-transport.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/device/exchange_group.h"
#include "comm/nvlink/exchange_layout.h"

namespace nanocp::comm {

class NcclLink;

class NcclGroup final : public ExchangeGroup {
 public:
  struct Options {
    std::vector<int> devices;  // of instance 0, 1, ...
    ExchangeCapacity capacity;
    int64_t kv_row_bytes = 0;  // K/V of one token in one layer, to a multiple of 16
    // Slots [this, this + max_rows) of the cache belong to no block table: there the K/V of own
    // rows lies that other instances hold, until it has been sent.
    int64_t kv_staging_slot = 0;
    int64_t timeout_us = 0;  // of a wait of one instance for another
  };
  // Takes heaps and outboxes (zeroed), connects the GPUs and sends a first message each way. Fails,
  // naming the call, when memory is short or NCCL finds no way between the GPUs.
  static Result<std::unique_ptr<NcclGroup>> create(const Options& options);
  ~NcclGroup() override;
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  cuda::ExchangeView view(InstanceId instance) const override;
  int64_t heap_bytes() const override { return layout_.total_bytes; }
  ExchangeLink* link(InstanceId instance) override;
  void abort(const std::string& message) override;
  void leave(InstanceId instance) override;
  Status failure() const override;

 private:
  friend class NcclLink;
  struct Member;

  explicit NcclGroup(const Options& options);
  Status allocate();
  Status allocate_member(InstanceId instance);
  Status connect_all();
  Status enqueue_first_message(size_t index, size_t peer);
  Status make_link(InstanceId instance);
  // Where this instance's kernels find the heap of each; see ExchangeView::base.
  std::vector<uint8_t*> bases_of(InstanceId instance) const;
  uint64_t begun(InstanceId instance) const;  // see NcclLink
  bool is_aborted() const { return aborted_.load(std::memory_order_acquire); }
  // Aborts the group with a report of a wait that ran out; the first one stays.
  Status fail(const std::string& report);

  const Options options_;
  const ExchangeLayout layout_;
  std::vector<std::unique_ptr<Member>> members_;
  int32_t* abort_word_ = nullptr;       // pinned; kernels of this transport never wait
  cuda::WaitReport* report_ = nullptr;  // likewise
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;
  std::string abort_message_;  // guarded by mutex_
  std::string wait_report_;    // guarded by mutex_
};

}  // namespace nanocp::comm
