// What the benches of the small CUDA kernels share: device memory that begins poisoned, random
// values, comparison with a reference, and times of launches in a graph. One thread, device 0.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "backend/cuda/device_step.h"
#include "base/random.h"
#include "base/result.h"
#include "bench/kernels/cuda_bench.h"

namespace nanocp::bench {

inline void check_status(const Status& status, int line) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: line %d: %s\n", line, status.error().message.c_str());
  std::exit(1);
}
#define CHECK_STATUS(call) ::nanocp::bench::check_status((call), __LINE__)

// All bits set at first: NaN as float and bf16, -1 as an integer.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(std::max<size_t>(1, count)) {
    CHECK_CUDA(cudaMalloc(&data_, bytes()));
    CHECK_CUDA(cudaMemset(data_, 0xff, bytes()));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { set(values); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  void set(const std::vector<T>& values) {
    CHECK_CUDA(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> to_host() const {
    std::vector<T> values(count_);
    CHECK_CUDA(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

// bf16 values and the same as floats, uniform in [-limit, limit].
struct Bf16Values {
  Bf16Values(size_t count, float limit, Random& random) : bf16(count), as_float(count) {
    for (size_t i = 0; i < count; ++i) {
      bf16[i] = __float2bfloat16(static_cast<float>(random.uniform() * 2 - 1) * limit);
      as_float[i] = __bfloat162float(bf16[i]);
    }
  }
  std::vector<__nv_bfloat16> bf16;
  std::vector<float> as_float;
};

inline std::vector<float> random_floats(size_t count, float low, float high, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = low + static_cast<float>(random.uniform()) * (high - low);
  return values;
}

inline std::vector<float> to_floats(const std::vector<__nv_bfloat16>& values) {
  std::vector<float> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) out[i] = __bfloat162float(values[i]);
  return out;
}

struct Tolerance {
  double relative;
  double absolute;
};
constexpr Tolerance kBf16Tolerance = {1.0 / 200, 1e-5};  // half a step of bf16 is 2^-8 at most

// Where NaN is wanted, the value must have stayed NaN. Prints the first difference.
inline bool agree(const std::string& what, const std::vector<float>& got,
                  const std::vector<float>& want, Tolerance tolerance) {
  size_t num_wrong = 0;
  size_t first = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double limit =
        tolerance.relative * std::abs(static_cast<double>(want[i])) + tolerance.absolute;
    const bool same = std::isnan(want[i])
                          ? std::isnan(got[i])
                          : std::abs(static_cast<double>(got[i]) - want[i]) <= limit;
    if (same) continue;
    if (num_wrong++ == 0) first = i;
  }
  if (num_wrong == 0) return true;
  std::printf("check %s: %zu of %zu differ, first at %zu: %g instead of %g FAILED\n", what.c_str(),
              num_wrong, want.size(), first, static_cast<double>(got[first]),
              static_cast<double>(want[first]));
  return false;
}

}  // namespace nanocp::bench
