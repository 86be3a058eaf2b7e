// Heaps for groups of any size on the GPUs that are there.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/cuda_status.h"
#include "comm/nvlink/symmetric_heap.h"

namespace nanocp::bench {

constexpr int64_t kTimeoutUs = 3'000'000;  // of a wait

template <typename T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "error: %s\n", result.error().message.c_str());
  std::exit(1);
}
inline void must_cuda(cudaError_t code) {
  must(cuda::cuda_status(code, "CUDA"));
}

inline int num_gpus() {
  int count = 0;
  must_cuda(cudaGetDeviceCount(&count));
  return count;
}

// Heaps of one group: through NvlinkGroup where each instance has a GPU, else plain memory of GPUs
// that are shared.
class Heaps {
 public:
  Heaps(const comm::ExchangeCapacity& capacity, bool plain) : capacity_(capacity) {
    const int count = capacity.num_instances;
    for (int i = 0; i < count; ++i) devices_.push_back(i % num_gpus());
    if (count <= num_gpus() && !plain) {
      group_ = must(comm::NvlinkGroup::create(
          {.devices = devices_, .capacity = capacity, .timeout_us = kTimeoutUs}));
      return;
    }
    make_plain();
  }
  ~Heaps() {
    for (uint8_t* heap : heaps_) static_cast<void>(cudaFree(heap));
    for (uint8_t** table : tables_) static_cast<void>(cudaFree(table));
    if (abort_word_ != nullptr) static_cast<void>(cudaFreeHost(abort_word_));
    if (report_ != nullptr) static_cast<void>(cudaFreeHost(report_));
  }
  Heaps(const Heaps&) = delete;
  Heaps& operator=(const Heaps&) = delete;

  int device(int instance) const { return devices_[static_cast<size_t>(instance)]; }
  bool connected() const { return group_ != nullptr; }
  comm::NvlinkGroup& group() { return *group_; }
  cuda::ExchangeView view(int instance) const {
    if (group_ != nullptr) return group_->view(instance);
    return {.base = tables_[static_cast<size_t>(instance)],
            .offsets = comm::lay_out_exchange(capacity_).offsets,
            .wait = {.abort_word = abort_word_,
                     .report = report_,
                     .timeout_ns = kTimeoutUs * 1000,
                     .self = instance},
            .self = instance,
            .num_instances = capacity_.num_instances,
            .max_rows = capacity_.max_rows,
            .hidden = capacity_.hidden,
            .topk = capacity_.topk,
            .num_heads = capacity_.num_heads,
            .query_values = capacity_.query_values,
            .partial_values = capacity_.partial_values};
  }
  std::string failure() const {
    if (group_ != nullptr) {
      const Status status = group_->failure();
      return status.ok() ? "" : status.error().message;
    }
    if (report_->state == 0) return "";
    return "instance " + std::to_string(report_->waiter) + " waited for " +
           std::to_string(report_->awaited) + ": " + to_string(report_->purpose) + ", epoch " +
           std::to_string(report_->epoch) + ", last seen " + std::to_string(report_->seen);
  }

 private:
  void make_plain() {
    const comm::ExchangeLayout layout = comm::lay_out_exchange(capacity_);
    const auto bytes = static_cast<size_t>(layout.total_bytes);
    for (int a = 0; a < num_gpus(); ++a) {
      must_cuda(cudaSetDevice(a));
      for (int b = 0; b < num_gpus(); ++b) {
        if (a == b) continue;
        const cudaError_t code = cudaDeviceEnablePeerAccess(b, 0);
        if (code != cudaErrorPeerAccessAlreadyEnabled) must_cuda(code);
        static_cast<void>(cudaGetLastError());
      }
    }
    for (const int device : devices_) {
      must_cuda(cudaSetDevice(device));
      heaps_.push_back(nullptr);
      must_cuda(cudaMalloc(reinterpret_cast<void**>(&heaps_.back()), bytes));
      must_cuda(cudaMemset(heaps_.back(), 0, bytes));
      must_cuda(cudaMemset(heaps_.back() + layout.offsets.combine, cuda::kNotArrivedByte,
                           static_cast<size_t>(layout.combine_bytes)));
      must_cuda(cudaDeviceSynchronize());
    }
    for (const int device : devices_) {
      must_cuda(cudaSetDevice(device));
      tables_.push_back(nullptr);
      const size_t size = heaps_.size() * sizeof(uint8_t*);
      must_cuda(cudaMalloc(reinterpret_cast<void**>(&tables_.back()), size));
      must_cuda(cudaMemcpy(tables_.back(), heaps_.data(), size, cudaMemcpyHostToDevice));
    }
    const unsigned flags = cudaHostAllocPortable | cudaHostAllocMapped;
    must_cuda(cudaHostAlloc(reinterpret_cast<void**>(&abort_word_), sizeof(int32_t), flags));
    must_cuda(cudaHostAlloc(reinterpret_cast<void**>(&report_), sizeof(*report_), flags));
    *abort_word_ = 0;
    *report_ = {};
  }

  const comm::ExchangeCapacity capacity_;
  std::vector<int> devices_;
  std::unique_ptr<comm::NvlinkGroup> group_;
  std::vector<uint8_t*> heaps_;
  std::vector<uint8_t**> tables_;
  int32_t* abort_word_ = nullptr;
  cuda::WaitReport* report_ = nullptr;
};

}  // namespace nanocp::bench
