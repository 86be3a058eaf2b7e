// A grammar as an automaton over bytes with calls: nodes that read a byte, branch, call a rule,
// count repetitions, or end a rule. Plain data, made by Builder and immutable afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace nanocp::grammar {

using NodeId = uint32_t;
using RuleId = uint32_t;

constexpr uint32_t kUnbounded = UINT32_MAX;

struct ByteSet {
  std::array<uint64_t, 4> words = {};

  static ByteSet of(uint8_t byte) { return range(byte, byte); }
  static ByteSet range(uint8_t low, uint8_t high) {
    ByteSet set;
    for (uint32_t b = low; b <= high; ++b) set.words[b / 64] |= uint64_t{1} << (b % 64);
    return set;
  }
  bool contains(uint8_t byte) const { return (words[byte / 64] >> (byte % 64) & 1U) != 0; }
  ByteSet& operator|=(const ByteSet& other) {
    for (size_t i = 0; i < words.size(); ++i) words[i] |= other.words[i];
    return *this;
  }
  bool operator==(const ByteSet&) const = default;
  auto operator<=>(const ByteSet&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14
};

struct Node {
  enum class Kind : uint8_t {
    kEnd,     // of the rule, or of one repetition
    kByte,    // reads a byte of byte_sets[a], goes on at next
    kSplit,   // goes on at targets[a .. a + b)
    kCall,    // rule a, then next
    kRepeat,  // repeats[a], then next
  };
  Kind kind;
  uint32_t a = 0;
  uint32_t b = 0;
  NodeId next = 0;
};

// The nodes from `body` to kEnd, `min` to `max` times.
struct Repeat {
  NodeId body;
  uint32_t min;
  uint32_t max;  // kUnbounded: no limit
};

struct Rule {
  NodeId start = 0;
  bool nests = false;  // counts for the limit on nesting: it may contain itself
  std::string name = {};
};

struct Automaton {
  std::vector<Node> nodes;
  std::vector<ByteSet> byte_sets;
  std::vector<NodeId> targets;
  std::vector<Repeat> repeats;
  std::vector<Rule> rules;
  NodeId start = 0;
  std::vector<bool> is_live;  // [nodes] whether the end of the rule can be reached
};

// Fills `is_live`. An error if nothing matches the grammar, or if a rule begins with itself, which
// a machine that reads forward cannot follow.
Status check_automaton(Automaton& automaton);

}  // namespace nanocp::grammar
