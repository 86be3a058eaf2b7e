// Data of cuda_attention_inputs_bench.cu: the heaps of an exchange, spread over the GPUs that there
// are, and a step with random targets and sends. One thread; device 0 is the own one.
#pragma once

#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "backend/cuda/attention_inputs.h"
#include "bench/kernels/cuda_row_ops_bench_data.h"
#include "ops/rotary.h"

namespace nanocp::bench {

constexpr int kBlockSize = 16;
constexpr int kNumBlocks = 24;
constexpr int kSelf = 0;

inline int64_t align(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// The heaps of all instances, as far as these kernels see them; spread over the GPUs that there
// are.
class Heaps {
 public:
  Heaps(int num_instances, int max_rows, int query_values, int64_t cache_bytes)
      : size_(layout(num_instances, max_rows, query_values, cache_bytes)) {
    int num_devices = 0;
    CHECK_CUDA(cudaGetDeviceCount(&num_devices));
    std::vector<uint8_t*> bases;
    for (int i = 0; i < num_instances; ++i) {
      CHECK_CUDA(cudaSetDevice(i % num_devices));
      memory_.push_back(std::make_unique<DeviceArray<uint8_t>>(static_cast<size_t>(size_)));
      bases.push_back(memory_.back()->data());
      CHECK_CUDA(cudaMemset(bases.back() + view_.offsets.flags, 0,
                            sizeof(uint64_t) * cuda::kNumFlagKinds * num_instances));
      CHECK_CUDA(cudaDeviceSynchronize());
    }
    CHECK_CUDA(cudaSetDevice(0));
    bases_.set(bases);
    view_.base = bases_.data();
  }

  const cuda::ExchangeView& view() const { return view_; }
  int64_t size() const { return size_; }
  uint8_t* own_base() const { return memory_[kSelf]->data(); }
  // One heap behind the other.
  std::vector<uint8_t> to_host() const {
    std::vector<uint8_t> all;
    for (const auto& heap : memory_) {
      const std::vector<uint8_t> bytes = heap->to_host();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }

  // `count` bf16 values at byte `at` of all heaps.
  static std::vector<float> values(const std::vector<uint8_t>& heaps, int64_t at, int64_t count) {
    std::vector<__nv_bfloat16> out(static_cast<size_t>(count));
    std::memcpy(out.data(), heaps.data() + at, out.size() * sizeof(__nv_bfloat16));
    return to_floats(out);
  }

 private:
  int64_t layout(int num_instances, int max_rows, int query_values, int64_t cache_bytes) {
    view_.self = kSelf;
    view_.num_instances = num_instances;
    view_.max_rows = max_rows;
    view_.query_values = query_values;
    view_.offsets.query = 256;
    view_.offsets.flags = 256 + align(int64_t{1 + num_instances} * max_rows * query_values * 2);
    view_.offsets.kv_cache = view_.offsets.flags + 1024;
    return view_.offsets.kv_cache + align(cache_bytes);
  }

  cuda::ExchangeView view_ = {};
  int64_t size_;
  std::vector<std::unique_ptr<DeviceArray<uint8_t>>> memory_;
  DeviceArray<uint8_t*> bases_{64};
};

inline void enable_peers() {
  int num_devices = 0;
  CHECK_CUDA(cudaGetDeviceCount(&num_devices));
  for (int i = 1; i < num_devices; ++i) CHECK_CUDA(cudaDeviceEnablePeerAccess(i, 0));
  std::printf("%d GPUs\n", num_devices);
}

// A step's rows, with random targets and sends, on host and device.
struct Step {
  Step(int num_rows, int bucket, int num_instances, Random& random)
      : positions(random_positions(bucket, random)),
        targets(random_targets(num_rows, bucket, num_instances, random)),
        num_sent(static_cast<size_t>(num_instances), 0) {
    for (int d = 0; d < num_instances; ++d) {
      for (int r = 0; d != kSelf && r < num_rows; ++r) {
        const bool chosen = targets[r].instance == d && targets[r].slot >= 0;
        if (chosen || random.below(3) == 0) sends.push_back({r, d, num_sent[d]++});
      }
    }
    upload(num_rows);
    device.header = d_header.data();
    device.positions = d_positions.data();
    device.kv_targets = d_targets.data();
    device.sends = d_sends.data();
    device.num_sent = d_num_sent.data();
  }

  void upload(int num_rows) {
    d_positions.set(positions);
    d_targets.set(targets);
    d_sends.set(sends);
    d_num_sent.set(num_sent);
    d_header.set({{7, num_rows, 0, num_rows, static_cast<int32_t>(sends.size())}});
  }

  static std::vector<int32_t> random_positions(int bucket, Random& random) {
    std::vector<int32_t> positions(bucket);
    for (int32_t& position : positions) {
      position = static_cast<int32_t>(random.below(random.below(2) == 0 ? 100 : 2000000));
    }
    return positions;
  }
  static std::vector<cuda::KvTarget> random_targets(int num_rows, int bucket, int num_instances,
                                                    Random& random) {
    std::vector<int64_t> slots(kNumBlocks * kBlockSize);
    std::iota(slots.begin(), slots.end(), 0);
    std::vector<cuda::KvTarget> targets(bucket);
    for (int r = 0; r < bucket; ++r) {
      std::swap(slots[r], slots[r + random.below(slots.size() - r)]);
      const bool kept = r >= num_rows || random.below(5) != 0;
      targets[r] = {kept ? slots[r] : -1, static_cast<int32_t>(random.below(num_instances)), 0};
    }
    return targets;
  }

  std::vector<int32_t> positions;
  std::vector<cuda::KvTarget> targets;
  std::vector<cuda::QuerySend> sends;
  std::vector<int32_t> num_sent;
  DeviceArray<int32_t> d_positions{1024}, d_num_sent{64};
  DeviceArray<cuda::KvTarget> d_targets{1024};
  DeviceArray<cuda::QuerySend> d_sends{8192};
  DeviceArray<cuda::StepHeader> d_header{1};
  cuda::DeviceStep device = {};
};

struct Rotation {
  explicit Rotation(const ops::RotarySpec& rotary)
      : spec(rotary), frequencies(ops::rotary_frequencies(rotary)) {}
  cuda::RotaryView view() const {
    return {frequencies.data(), spec.rotary_dim, spec.interleaved,
            static_cast<float>(spec.cos_sin_scale)};
  }
  ops::RotarySpec spec;
  DeviceArray<float> frequencies;
};

}  // namespace nanocp::bench
