// Regular expressions as a grammar: parsed to a tree, then built as nodes of an automaton. Covered
// is what denotes a regular language: classes, groups, alternatives, counts, anchors at the ends.
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/builder.h"
#include "grammar/char_set.h"

namespace nanocp::grammar {

struct Regex {
  enum class Kind { kChars, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;  // an empty one matches the empty text
  CharSet chars = {};
  std::vector<Regex> parts = {};  // of a repetition: what is repeated
  Builder::Count count = {1, 1};
};

// How many characters the texts of a Regex have.
struct TextLength {
  uint64_t min;
  uint64_t max;  // kUnbounded or more: no limit
};
TextLength text_length(const Regex& regex);

enum class RegexMatch {
  kWhole,   // anchors at the ends may be there and say nothing
  kSearch,  // as JSON schema has it: without an anchor anything may stand before or behind
};

// Errors name the position in `pattern`.
Result<Regex> parse_regex(std::string_view pattern, RegexMatch match);

// The nodes of one character of a set, in front of `next`: as it stands, or as a JSON string has
// it.
using CharNodes = std::function<NodeId(const CharSet& chars, NodeId next)>;

NodeId build_regex(Builder& builder, const Regex& regex, const CharNodes& chars, NodeId next);

}  // namespace nanocp::grammar
