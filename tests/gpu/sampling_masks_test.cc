// The sampler's tokens under masks of allowed tokens, against those of the host. Needs a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "backend/cuda/sampling.h"
#include "backend/device_info.h"
#include "base/random.h"
#include "ops/sampling.h"

namespace nanocp::cuda {
namespace {

template <typename T>
class DeviceCopy {
 public:
  explicit DeviceCopy(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceCopy() { static_cast<void>(cudaFree(data_)); }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

struct Rows {
  int32_t vocab_size;
  std::vector<std::vector<float>> logits;
  std::vector<std::shared_ptr<const TokenMask>> masks;  // null: none
  std::vector<float> temperatures;
};

// Of none, few, about half, or nearly all tokens; some of the rows have no mask.
Rows random_rows(Random& random, int32_t vocab_size, int32_t count) {
  Rows rows = {.vocab_size = vocab_size, .logits = {}, .masks = {}, .temperatures = {}};
  for (int32_t r = 0; r < count; ++r) {
    auto& logits = rows.logits.emplace_back(static_cast<size_t>(vocab_size));
    for (float& logit : logits) {
      logit = static_cast<float>((random.uniform() - 0.5) * 12.0);
      if (random.below(200) == 0) logit = std::numeric_limits<float>::quiet_NaN();
    }
    rows.temperatures.push_back(r % 3 == 0 ? 0.0F : 0.9F);
    if (r % 5 == 4) {
      rows.masks.push_back(nullptr);
      continue;
    }
    auto mask = std::make_shared<TokenMask>(mask_words(vocab_size), 0);
    const uint64_t shares[] = {1, 40, 500, 990};
    const uint64_t share = shares[random.below(4)];
    for (int32_t token = 0; token < vocab_size; ++token) {
      const bool is_allowed = share > 1 && random.below(1000) < share;
      if (is_allowed) (*mask)[static_cast<size_t>(token) / 32] |= 1U << (token % 32);
    }
    const auto one = static_cast<TokenId>(random.below(static_cast<uint64_t>(vocab_size)));
    (*mask)[static_cast<size_t>(one) / 32] |= 1U << (one % 32);
    if (share == 1) logits[static_cast<size_t>(one)] = -std::numeric_limits<float>::infinity();
    rows.masks.push_back(std::move(mask));
  }
  return rows;
}

void check(const Rows& rows, uint64_t seed) {
  const auto count = static_cast<int32_t>(rows.logits.size());
  const int64_t stride = (rows.vocab_size + 7) / 8 * 8;
  std::vector<float> logits(static_cast<size_t>(count * stride), 1000.0F);  // beyond the rows too
  std::vector<std::unique_ptr<DeviceCopy<uint32_t>>> masks;
  std::vector<SampleSpec> specs;
  for (int32_t r = 0; r < count; ++r) {
    const auto row = static_cast<size_t>(r);
    std::copy(rows.logits[row].begin(), rows.logits[row].end(), logits.begin() + r * stride);
    SampleSpec spec = {
        .random_bits = counter_random(seed, row),
        .temperature = rows.temperatures[row],
        .mode = rows.temperatures[row] == 0.0F ? SampleMode::kGreedy : SampleMode::kDraw};
    if (rows.masks[row] != nullptr) {
      masks.push_back(std::make_unique<DeviceCopy<uint32_t>>(*rows.masks[row]));
      spec.allowed = masks.back()->get();
    }
    specs.push_back(spec);
  }
  StepHeader header = {};
  header.num_samples = count;
  const DeviceCopy<StepHeader> d_header({header});
  const DeviceCopy<float> d_logits(logits);
  const DeviceCopy<SampleSpec> d_specs(specs);
  const DeviceCopy<int32_t> d_tokens(std::vector<int32_t>(static_cast<size_t>(count), -7));
  const DeviceCopy<uint8_t> d_workspace(std::vector<uint8_t>(sampling_workspace_bytes(count), 0));
  const Status launched = launch_sample({.header = d_header.get(),
                                         .num_samples = count,
                                         .vocab_size = rows.vocab_size,
                                         .logits = d_logits.get(),
                                         .logits_stride = stride,
                                         .specs = d_specs.get(),
                                         .tokens = d_tokens.get(),
                                         .workspace = d_workspace.get()},
                                        nullptr);
  ASSERT_TRUE(launched.ok()) << launched.error().message;
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  ASSERT_EQ(cudaMemcpy(tokens.data(), d_tokens.get(), tokens.size() * sizeof(int32_t),
                       cudaMemcpyDeviceToHost),
            cudaSuccess);
  for (size_t r = 0; r < rows.logits.size(); ++r) {
    SamplingParams params;
    params.temperature = rows.temperatures[r];
    params.allowed_tokens = rows.masks[r];
    std::vector<float> host = rows.logits[r];
    EXPECT_EQ(tokens[r], ops::sample(host, params, {}, specs[r].random_bits).token)
        << "row " << r << " of " << rows.vocab_size;
  }
}

TEST(SamplingMasks, GiveTheTokensOfTheHost) {
  const auto devices = backend::list_devices();
  if (!devices.ok() || devices->empty()) GTEST_SKIP() << "no GPU";
  Random random(21);
  for (const int32_t vocab_size : {1, 7, 31, 33, 1000, 32'003, 151'936}) {
    for (uint64_t seed = 0; seed < 4; ++seed) check(random_rows(random, vocab_size, 40), seed);
  }
}

}  // namespace
}  // namespace nanocp::cuda
