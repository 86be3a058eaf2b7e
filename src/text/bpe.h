// Byte-pair encoding over bytes (Sennrich et al., 2016; byte-level as in GPT-2). Immutable after
// construction; any thread. Time is O(n log n) in the length of a piece, whatever its content.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "plan/ids.h"

namespace nanocp::text {

// Two adjacent tokens become one. The position in the list of merges is the rank: lower goes first.
struct BpeMerge {
  TokenId left;
  TokenId right;
  TokenId merged;
};

class Bpe {
 public:
  // `byte_tokens`: the token of each single byte. Of equal pairs in `merges` the last one counts.
  Bpe(const std::array<TokenId, 256>& byte_tokens, const std::vector<BpeMerge>& merges);

  // Appends the tokens of `piece`.
  void encode(std::string_view piece, std::vector<TokenId>& tokens) const;

 private:
  struct Ranked {
    uint32_t rank;
    TokenId merged;
  };
  struct PairHash {
    size_t operator()(uint64_t pair) const;
  };
  const Ranked* find(TokenId left, TokenId right) const;

  std::array<TokenId, 256> byte_tokens_;
  std::unordered_map<uint64_t, Ranked, PairHash> merges_;
};

}  // namespace nanocp::text
