#include "text/bpe.h"

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "base/random.h"

namespace nanocp::text {
namespace {

constexpr int32_t kEnd = -1;

struct Symbol {
  TokenId token;
  int32_t previous;
  int32_t next;
  bool alive;
};

uint64_t pair_key(TokenId left, TokenId right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A possible merge of the symbol at `position` with its successor; lowest rank, then leftmost
// first.
uint64_t queue_entry(uint32_t rank, int32_t position) {
  return (static_cast<uint64_t>(rank) << 32) | static_cast<uint32_t>(position);
}

class Queue {
 public:
  void push(uint64_t entry) {
    entries_.push_back(entry);
    std::push_heap(entries_.begin(), entries_.end(), std::greater<>());
  }
  uint64_t pop() {
    std::pop_heap(entries_.begin(), entries_.end(), std::greater<>());
    const uint64_t entry = entries_.back();
    entries_.pop_back();
    return entry;
  }
  bool empty() const { return entries_.empty(); }

 private:
  std::vector<uint64_t> entries_;
};

// Pieces longer than this do not fit 32-bit positions; they are merged part by part.
constexpr size_t kPieceBytesMax = size_t{1} << 30;

}  // namespace

size_t Bpe::PairHash::operator()(uint64_t pair) const {
  return mix_bits(pair);
}

Bpe::Bpe(const std::array<TokenId, 256>& byte_tokens, const std::vector<BpeMerge>& merges)
    : byte_tokens_(byte_tokens) {
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& merge = merges[rank];
    merges_[pair_key(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.merged};
  }
}

const Bpe::Ranked* Bpe::find(TokenId left, TokenId right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view piece, std::vector<TokenId>& tokens) const {
  while (piece.size() > kPieceBytesMax) {
    encode(piece.substr(0, kPieceBytesMax), tokens);
    piece.remove_prefix(kPieceBytesMax);
  }
  const auto count = static_cast<int32_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  Queue queue;
  const auto propose = [&](int32_t position) {
    if (position == kEnd) return;
    const Symbol& symbol = symbols[static_cast<size_t>(position)];
    if (symbol.next == kEnd) return;
    const Ranked* merge = find(symbol.token, symbols[static_cast<size_t>(symbol.next)].token);
    if (merge != nullptr) queue.push(queue_entry(merge->rank, position));
  };
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(piece[static_cast<size_t>(i)]);
    symbols[static_cast<size_t>(i)] = {byte_tokens_[byte], i - 1, i + 1 < count ? i + 1 : kEnd,
                                       true};
  }
  for (int32_t i = 0; i < count; ++i) propose(i);

  while (!queue.empty()) {
    const uint64_t entry = queue.pop();
    const auto position = static_cast<int32_t>(entry & 0xffffffffU);
    Symbol& left = symbols[static_cast<size_t>(position)];
    if (!left.alive || left.next == kEnd) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Ranked* merge = find(left.token, right.token);
    // Entries are not removed when a neighbour changes: an outdated one no longer has its rank.
    if (merge == nullptr || merge->rank != static_cast<uint32_t>(entry >> 32)) continue;
    left.token = merge->merged;
    right.alive = false;
    left.next = right.next;
    if (left.next != kEnd) symbols[static_cast<size_t>(left.next)].previous = position;
    propose(left.previous);
    propose(position);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.alive) tokens.push_back(symbol.token);
  }
}

}  // namespace nanocp::text
