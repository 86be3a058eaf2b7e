// Masks of allowed tokens on their way to the GPU: those of a step are gathered in pinned memory,
// each once however many rows share it, and copied behind the step before. Owned by an instance;
// its thread, with its device current. Two host copies are used in turn, as those of StepImage.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "plan/token_mask.h"

namespace nanocp::runner {

class TokenMasks {
 public:
  // Rows of a step whose masks have room; a step with more is sampled on the host.
  static constexpr size_t kRowsMax = 256;

  static Result<std::unique_ptr<TokenMasks>> create(int64_t vocab_size);
  ~TokenMasks();
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;

  // Masks that are added from now on are those of the next step.
  void begin_step();
  // Where the mask is on the GPU once upload() has been carried out; null: no room. `mask` lives
  // until the next begin_step().
  const uint32_t* add(const TokenMask& mask);
  Status upload(cudaStream_t stream);

 private:
  explicit TokenMasks(int64_t vocab_size) : num_words_(mask_words(vocab_size)) {}
  size_t copy_words() const { return kRowsMax * num_words_; }

  const size_t num_words_;    // of the model's vocabulary
  uint32_t* host_ = nullptr;  // pinned, two copies
  uint32_t* device_ = nullptr;
  size_t current_ = 0;  // host copy
  std::vector<const TokenMask*> added_;
};

}  // namespace nanocp::runner
