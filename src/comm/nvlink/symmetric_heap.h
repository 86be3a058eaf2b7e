// The GPUs of one process that exchange rows over NVLink: a heap of the same layout on each, mapped
// into all of them through NCCL's device API, and the words that end or report waits. The only file
// that knows how peers' memory is reached.
//
// Owned by the runner and created and destroyed by its thread; outlives all kernels that use its
// views. abort() and failure() may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "comm/device/exchange_group.h"
#include "comm/nvlink/exchange_layout.h"
#include "plan/ids.h"

namespace nanocp::comm {

class NvlinkGroup final : public ExchangeGroup {
 public:
  struct Options {
    std::vector<int> devices;  // of instance 0, 1, ...
    ExchangeCapacity capacity;
    int64_t timeout_us = 0;  // of one wait of a kernel
  };
  // Takes the heaps (zeroed) and connects them. One instance needs neither NCCL nor a peer. Fails,
  // naming the call, when memory is short or the GPUs do not reach one another.
  static Result<std::unique_ptr<NvlinkGroup>> create(const Options& options);
  ~NvlinkGroup() override;
  NvlinkGroup(const NvlinkGroup&) = delete;
  NvlinkGroup& operator=(const NvlinkGroup&) = delete;

  cuda::ExchangeView view(InstanceId instance) const override;
  int64_t heap_bytes() const override { return layout_.total_bytes; }
  ExchangeLink* link(InstanceId /*instance*/) override { return nullptr; }
  void abort(const std::string& message) override;
  void leave(InstanceId /*instance*/) override {}  // the abort ends all waits of kernels
  Status failure() const override;

 private:
  struct Member;

  explicit NvlinkGroup(const Options& options);
  Status allocate();
  Status allocate_words();
  Status allocate_single();
  Status connect_all();
  Status connect(size_t index);

  const Options options_;
  const ExchangeLayout layout_;
  std::vector<std::unique_ptr<Member>> members_;
  int32_t* abort_word_ = nullptr;       // pinned, mapped into all GPUs
  cuda::WaitReport* report_ = nullptr;  // likewise
  mutable std::mutex mutex_;
  std::string abort_message_;  // guarded by mutex_
};

}  // namespace nanocp::comm
