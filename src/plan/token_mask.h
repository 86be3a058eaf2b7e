// Which tokens may be sampled: one bit for each. Plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/ids.h"

namespace nanocp {

// Bit t % 32 of word t / 32 is set if token t may be sampled. Tokens beyond the last word may not.
using TokenMask = std::vector<uint32_t>;

inline size_t mask_words(int64_t vocab_size) {
  return static_cast<size_t>((vocab_size + 31) / 32);
}
// Requires: token >= 0.
inline bool mask_allows(const TokenMask& mask, TokenId token) {
  const auto word = static_cast<size_t>(token) / 32;
  return word < mask.size() && (mask[word] >> (static_cast<uint32_t>(token) % 32) & 1U) != 0;
}

}  // namespace nanocp
