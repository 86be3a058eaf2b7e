// Byte-pair encoding (Sennrich et al., 2016) over token ids: adjacent tokens are merged, lowest
// rank first. Immutable after construction; any thread. Time is O(n log n) in the length of a
// piece, whatever its content.
#pragma once

#include <cstdint>
#include <span>
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
  // Of equal pairs in `merges` the last one counts.
  explicit Bpe(const std::vector<BpeMerge>& merges);

  // Merges `symbols`, the tokens of single bytes or characters, and appends the result to `tokens`.
  // `symbols` is working memory: its content afterwards is unspecified.
  void encode(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const;

 private:
  struct Entry {
    uint64_t pair;
    uint32_t rank;  // kNoRank: free
    TokenId merged;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  // The free entry, of rank kNoRank, if the pair does not merge.
  const Entry& find(TokenId left, TokenId right) const;
  void encode_short(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const;
  void encode_long(std::span<const TokenId> symbols, std::vector<TokenId>& tokens) const;

  std::vector<Entry> entries_;  // open addressing, at most half full
  uint64_t mask_;
};

}  // namespace nanocp::text
