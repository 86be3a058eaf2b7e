#include "grammar/builder.h"

#include <algorithm>
#include <utility>

#include "grammar/limits.h"

namespace nanocp::grammar {
namespace {

using Kind = Node::Kind;

constexpr uint32_t kUnrolledNodesMax = 128;

// One form of UTF-8 and the characters that have it.
struct Utf8Form {
  CharRange range;
  int32_t num_bytes;
};
constexpr Utf8Form kForms[] = {
    {{0, 0x7f}, 1}, {{0x80, 0x7ff}, 2}, {{0x800, 0xffff}, 3}, {{0x10000, 0x10ffff}, 4}};

uint8_t utf8_byte(char32_t c, int32_t num_bytes, int32_t index) {
  constexpr uint32_t kLead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};
  const auto shift = static_cast<uint32_t>(6 * (num_bytes - 1 - index));
  const uint32_t bits = static_cast<uint32_t>(c) >> shift;
  if (index == 0) return static_cast<uint8_t>(kLead[num_bytes] | bits);
  return static_cast<uint8_t>(0x80U | (bits & 0x3fU));
}

// Cuts a range of characters of one form into pieces that are a product of byte ranges, and adds
// the nodes of each to `starts`. Bytes from `index` on are still to be chosen.
void cut_range(Builder& builder, CharRange range, int32_t num_bytes, NodeId next,
               std::vector<NodeId>& starts) {
  for (int32_t rest = num_bytes - 1; rest >= 1; --rest) {
    // The last `rest` bytes hold these bits; a piece has all of their values, or one value before.
    const char32_t mask = (char32_t{1} << static_cast<uint32_t>(6 * rest)) - 1;
    if ((range.low | mask) == (range.high | mask)) continue;
    if ((range.low & mask) != 0) {
      cut_range(builder, {range.low, range.low | mask}, num_bytes, next, starts);
      cut_range(builder, {(range.low | mask) + 1, range.high}, num_bytes, next, starts);
      return;
    }
    if ((range.high & mask) != mask) {
      cut_range(builder, {range.low, (range.high & ~mask) - 1}, num_bytes, next, starts);
      cut_range(builder, {range.high & ~mask, range.high}, num_bytes, next, starts);
      return;
    }
  }
  NodeId node = next;
  for (int32_t i = num_bytes - 1; i >= 0; --i) {
    node = builder.byte(
        ByteSet::range(utf8_byte(range.low, num_bytes, i), utf8_byte(range.high, num_bytes, i)),
        node);
  }
  starts.push_back(node);
}

}  // namespace

Builder::Builder() {
  automaton_.nodes = {{.kind = Kind::kEnd}, {.kind = Kind::kSplit}};
}

NodeId Builder::add(const Node& node) {
  if (automaton_.nodes.size() >= kNodesMax) {
    is_full_ = true;
    return never();
  }
  automaton_.nodes.push_back(node);
  return static_cast<NodeId>(automaton_.nodes.size() - 1);
}

uint32_t Builder::add_byte_set(const ByteSet& set) {
  const auto [found, is_first] =
      byte_set_ids_.emplace(set, static_cast<uint32_t>(automaton_.byte_sets.size()));
  if (is_first) automaton_.byte_sets.push_back(set);
  return found->second;
}

// Equal nodes are made once: what follows a choice is then in one place, not in several.
NodeId Builder::byte(const ByteSet& set, NodeId next) {
  const uint32_t set_id = add_byte_set(set);
  const auto found = byte_nodes_.find({set_id, next});
  if (found != byte_nodes_.end()) return found->second;
  const NodeId node = add({.kind = Kind::kByte, .a = set_id, .b = 0, .next = next});
  byte_nodes_.emplace(std::pair(set_id, next), node);
  return node;
}

NodeId Builder::literal(std::string_view text, NodeId next) {
  for (size_t i = text.size(); i > 0; --i) {
    next = byte(ByteSet::of(static_cast<uint8_t>(text[i - 1])), next);
  }
  return next;
}

NodeId Builder::split(const std::vector<NodeId>& targets) {
  if (targets.empty()) return never();
  if (targets.size() == 1) return targets[0];
  const auto first = static_cast<uint32_t>(automaton_.targets.size());
  const NodeId node = add(
      {.kind = Kind::kSplit, .a = first, .b = static_cast<uint32_t>(targets.size()), .next = 0});
  if (node == never()) return node;
  automaton_.targets.insert(automaton_.targets.end(), targets.begin(), targets.end());
  return node;
}

NodeId Builder::one_of(std::vector<std::string> texts, NodeId next) {
  if (texts.empty()) return never();
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return tree(texts, 0, texts.size(), 0, next);
}

// Of texts [begin, end), which are equal up to `depth`.
NodeId Builder::tree(const std::vector<std::string>& texts, size_t begin, size_t end, size_t depth,
                     NodeId next) {
  std::vector<NodeId> starts;
  // What all have in common is walked over here, so that recursion is no deeper than branches are.
  size_t common = depth;
  if (end - begin == 1) {
    common = texts[begin].size();
  } else if (begin < end) {
    const std::string& first = texts[begin];
    const std::string& last = texts[end - 1];
    while (common < first.size() && first[common] == last[common]) ++common;
  }
  if (begin < end && texts[begin].size() == common) {
    starts.push_back(next);
    ++begin;
  }
  while (begin < end && !full()) {
    size_t same = begin + 1;
    while (same < end && texts[same][common] == texts[begin][common]) ++same;
    const NodeId below = tree(texts, begin, same, common + 1, next);
    starts.push_back(byte(ByteSet::of(static_cast<uint8_t>(texts[begin][common])), below));
    begin = same;
  }
  const std::string& any = texts[end - 1];
  return literal(std::string_view(any).substr(depth, common - depth), split(starts));
}

NodeId Builder::character(const CharSet& set, NodeId next) {
  std::vector<NodeId> starts;
  ByteSet ascii;
  for (const CharRange& range : set.ranges()) {
    for (const Utf8Form& form : kForms) {
      const CharRange part = {std::max(range.low, form.range.low),
                              std::min(range.high, form.range.high)};
      if (part.low > part.high) continue;
      if (form.num_bytes == 1) {
        ascii |= ByteSet::range(static_cast<uint8_t>(part.low), static_cast<uint8_t>(part.high));
      } else {
        cut_range(*this, part, form.num_bytes, next, starts);
      }
    }
  }
  if (ascii != ByteSet()) starts.push_back(byte(ascii, next));
  return split(starts);
}

// The body leads back to the branch in front of it.
NodeId Builder::star(const Body& body, NodeId next) {
  const auto first = static_cast<uint32_t>(automaton_.targets.size());
  const NodeId node = add({.kind = Kind::kSplit, .a = first, .b = 2, .next = 0});
  if (node == never()) return node;
  automaton_.targets.push_back(next);
  automaton_.targets.push_back(never());
  const NodeId start = body(node);
  automaton_.targets[first + 1] = start;
  return node;
}

// Short ones are written out, longer ones are counted when the machine runs.
NodeId Builder::repeat(Count count, const Body& body, NodeId next) {
  if (count.max == 0) return next;
  if (count.min == 0 && count.max == kUnbounded) return star(body, next);
  const size_t num_before = automaton_.nodes.size();
  const NodeId counted = body(end());
  const size_t num_body = automaton_.nodes.size() - num_before + 1;
  const uint32_t num_copies = count.max == kUnbounded ? count.min + 1 : count.max;
  if (num_body * num_copies > kUnrolledNodesMax) {
    const auto index = static_cast<uint32_t>(automaton_.repeats.size());
    automaton_.repeats.push_back({counted, count.min, count.max});
    return add({.kind = Kind::kRepeat, .a = index, .b = 0, .next = next});
  }
  const NodeId after = next;
  if (count.max == kUnbounded) {
    next = star(body, next);
  } else {
    for (uint32_t i = count.min; i < count.max; ++i) next = split({body(next), after});
  }
  for (uint32_t i = 0; i < count.min; ++i) next = body(next);
  return next;
}

RuleId Builder::add_rule(std::string name, bool nests) {
  automaton_.rules.push_back({.start = never(), .nests = nests, .name = std::move(name)});
  return static_cast<RuleId>(automaton_.rules.size() - 1);
}

NodeId Builder::call(RuleId rule, NodeId next) {
  return add({.kind = Kind::kCall, .a = rule, .b = 0, .next = next});
}

Result<Automaton> Builder::finish(NodeId start) {
  if (is_full_) {
    return invalid_argument("it is too large: more than " + std::to_string(kNodesMax) + " states");
  }
  automaton_.start = start;
  NANOCP_RETURN_IF_ERROR(check_automaton(automaton_));
  return std::move(automaton_);
}

}  // namespace nanocp::grammar
