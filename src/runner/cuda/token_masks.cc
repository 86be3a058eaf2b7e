#include "runner/cuda/token_masks.h"

#include <algorithm>

#include "backend/cuda/cuda_status.h"

namespace nanocp::runner {

using cuda::cuda_status;

Result<std::unique_ptr<TokenMasks>> TokenMasks::create(int64_t vocab_size) {
  std::unique_ptr<TokenMasks> masks(new TokenMasks(vocab_size));
  const size_t bytes = masks->copy_words() * sizeof(uint32_t);
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaHostAlloc(reinterpret_cast<void**>(&masks->host_), 2 * bytes, cudaHostAllocDefault),
      "pinned memory of masks of allowed tokens"));
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaMalloc(reinterpret_cast<void**>(&masks->device_), bytes),
                                     "device memory of masks of allowed tokens"));
  return masks;
}

TokenMasks::~TokenMasks() {
  if (host_ != nullptr) static_cast<void>(cudaFreeHost(host_));
  if (device_ != nullptr) static_cast<void>(cudaFree(device_));
}

void TokenMasks::begin_step() {
  current_ = 1 - current_;
  added_.clear();
}

const uint32_t* TokenMasks::add(const TokenMask& mask) {
  const auto found = std::find(added_.begin(), added_.end(), &mask);
  const auto row = static_cast<size_t>(found - added_.begin());
  if (row >= kRowsMax) return nullptr;
  if (found == added_.end()) {
    added_.push_back(&mask);
    // Tokens beyond the mask, such as those that pad a model's vocabulary, are not allowed.
    uint32_t* words = host_ + current_ * copy_words() + row * num_words_;
    const size_t num_given = std::min(mask.size(), num_words_);
    std::copy_n(mask.begin(), num_given, words);
    std::fill(words + num_given, words + num_words_, 0U);
  }
  return device_ + row * num_words_;
}

Status TokenMasks::upload(cudaStream_t stream) {
  if (added_.empty()) return ok_status();
  return cuda_status(cudaMemcpyAsync(device_, host_ + current_ * copy_words(),
                                     added_.size() * num_words_ * sizeof(uint32_t),
                                     cudaMemcpyHostToDevice, stream),
                     "copy of masks of allowed tokens");
}

}  // namespace nanocp::runner
