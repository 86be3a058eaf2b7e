#include "text/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

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
constexpr size_t kPieceSymbolsMax = size_t{1} << 30;

// Up to here a scan for the lowest rank beats a queue.
constexpr size_t kShortPiece = 24;

}  // namespace

Bpe::Bpe(const std::vector<BpeMerge>& merges) {
  const size_t size = std::bit_ceil(std::max<size_t>(merges.size() * 2, 2));
  mask_ = size - 1;
  entries_.resize(size, {.pair = 0, .rank = kNoRank, .merged = 0});
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& merge = merges[rank];
    // Found or free, it is the place of the pair.
    auto& entry = const_cast<Entry&>(find(merge.left, merge.right));
    entry = {pair_key(merge.left, merge.right), static_cast<uint32_t>(rank), merge.merged};
  }
}

const Bpe::Entry& Bpe::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_key(left, right);
  uint64_t slot = mix_bits(pair) & mask_;
  while (entries_[slot].rank != kNoRank && entries_[slot].pair != pair) slot = (slot + 1) & mask_;
  return entries_[slot];
}

void Bpe::encode(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const {
  while (symbols.size() > kPieceSymbolsMax) {
    encode_long(symbols.first(kPieceSymbolsMax), tokens);
    symbols = symbols.subspan(kPieceSymbolsMax);
  }
  if (symbols.size() <= kShortPiece) {
    encode_short(symbols, tokens);
  } else {
    encode_long(symbols, tokens);
  }
}

void Bpe::encode_short(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const {
  struct Candidate {
    uint32_t rank = kNoRank;
    TokenId merged = 0;
  };
  size_t count = symbols.size();
  std::array<Candidate, kShortPiece> with_next;  // of each symbol and its successor
  const auto look_up = [&](size_t i) {
    const Entry& entry = find(symbols[i], symbols[i + 1]);
    with_next[i] = {entry.rank, entry.merged};
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (with_next[i].rank < with_next[best].rank) best = i;
    }
    if (with_next[best].rank == kNoRank) break;
    symbols[best] = with_next[best].merged;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<ptrdiff_t>(count),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(with_next.begin() + best + 1, with_next.begin() + count - 1,
              with_next.begin() + best);
    --count;
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  tokens.insert(tokens.end(), symbols.begin(), symbols.begin() + static_cast<ptrdiff_t>(count));
}

void Bpe::encode_long(std::span<const TokenId> tokens_in, std::vector<TokenId>& tokens) const {
  const auto count = static_cast<int32_t>(tokens_in.size());
  std::vector<Symbol> symbols(tokens_in.size());
  Queue queue;
  const auto propose = [&](int32_t position) {
    if (position == kEnd) return;
    const Symbol& symbol = symbols[static_cast<size_t>(position)];
    if (symbol.next == kEnd) return;
    const Entry& merge = find(symbol.token, symbols[static_cast<size_t>(symbol.next)].token);
    if (merge.rank != kNoRank) queue.push(queue_entry(merge.rank, position));
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {tokens_in[static_cast<size_t>(i)], i - 1,
                                       i + 1 < count ? i + 1 : kEnd, true};
  }
  for (int32_t i = 0; i < count; ++i) propose(i);

  while (!queue.empty()) {
    const uint64_t entry = queue.pop();
    const auto position = static_cast<int32_t>(entry & 0xffffffffU);
    Symbol& left = symbols[static_cast<size_t>(position)];
    if (!left.alive || left.next == kEnd) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Entry& merge = find(left.token, right.token);
    // Queue entries stay when a neighbour changes: an outdated one no longer has its rank.
    if (merge.rank != static_cast<uint32_t>(entry >> 32)) continue;
    left.token = merge.merged;
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
