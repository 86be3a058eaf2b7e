#include "grammar/json_text.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace nanocp::grammar {
namespace {

// Five levels of four, or ten of two; nothing asks that deeper ones are indented more.
constexpr uint32_t kIndentMax = 20;

// What stands in a string as it is.
const CharSet& plain_chars() {
  static const CharSet kSet = CharSet({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}).inverted();
  return kSet;
}

struct ShortEscape {
  char32_t character;
  char letter;
};
constexpr ShortEscape kShortEscapes[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                         {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

ByteSet hex_digits() {
  ByteSet set = ByteSet::range('0', '9');
  set |= ByteSet::range('a', 'f');
  set |= ByteSet::range('A', 'F');
  return set;
}

ByteSet bytes_of(std::string_view text) {
  ByteSet set;
  for (const char c : text) set |= ByteSet::of(static_cast<uint8_t>(c));
  return set;
}

}  // namespace

NodeId JsonText::shared(const std::string& key, bool nests, const std::function<NodeId()>& define,
                        NodeId next) {
  const auto found = rules_.find(key);
  if (found != rules_.end()) return builder_.call(found->second, next);
  const RuleId rule = builder_.add_rule(key, nests);
  rules_.emplace(key, rule);
  builder_.define_rule(rule, define());
  return builder_.call(rule, next);
}

// A model that likes white space must not fill its answer with it.
NodeId JsonText::space(NodeId next) {
  const NodeId indent = builder_.repeat(
      {0, kIndentMax}, [&](NodeId after) { return builder_.byte(bytes_of(" \t"), after); }, next);
  return builder_.split({next, builder_.literal(" ", next), builder_.literal("\n", indent)});
}

NodeId JsonText::colon(NodeId value) {
  return builder_.literal(":", builder_.split({value, builder_.literal(" ", value)}));
}

// One character of a set in its usual form: as it is, or else escaped.
NodeId JsonText::character(const CharSet& chars, NodeId next) {
  std::vector<NodeId> starts = {builder_.character(chars.intersected(plain_chars()), next)};
  std::string letters;
  CharSet rest = chars.without(plain_chars());
  for (const ShortEscape& escape : kShortEscapes) {
    if (!chars.contains(escape.character)) continue;
    letters += escape.letter;
    rest = rest.without({{escape.character, escape.character}});
  }
  if (!letters.empty()) {
    starts.push_back(builder_.literal("\\", builder_.byte(bytes_of(letters), next)));
  }
  std::vector<std::string> codes;  // of control characters
  for (const CharRange& range : rest.ranges()) {
    for (char32_t c = range.low; c <= range.high; ++c) {
      constexpr char kHex[] = "0123456789abcdef";
      codes.push_back({'\\', 'u', '0', '0', kHex[c / 16], kHex[c % 16]});
    }
  }
  if (!codes.empty()) starts.push_back(builder_.one_of(std::move(codes), next));
  return builder_.split(starts);
}

// In any form that JSON has for it.
NodeId JsonText::any_character(NodeId next) {
  const NodeId escape = builder_.split(
      {builder_.byte(bytes_of("\"\\/bfnrt"), next), builder_.literal("u", unicode_escape(next))});
  return builder_.split({builder_.character(plain_chars(), next), builder_.literal("\\", escape)});
}

// Four hexadecimal digits; of surrogates a pair.
NodeId JsonText::unicode_escape(NodeId next) {
  const auto digits = [&](uint32_t count, NodeId after) {
    return builder_.repeat(
        {count, count}, [&](NodeId rest) { return builder_.byte(hex_digits(), rest); }, after);
  };
  const NodeId low_surrogate = builder_.literal(
      "\\u", builder_.byte(bytes_of("dD"), builder_.byte(bytes_of("cdefCDEF"), digits(2, next))));
  const NodeId after_d =
      builder_.split({builder_.byte(ByteSet::range('0', '7'), digits(2, next)),
                      builder_.byte(bytes_of("89abAB"), digits(2, low_surrogate))});
  return builder_.split({builder_.byte(bytes_of("0123456789abcefABCEF"), digits(3, next)),
                         builder_.byte(bytes_of("dD"), after_d)});
}

NodeId JsonText::string(Builder::Count length, NodeId next) {
  const std::string key = "string " + std::to_string(length.min) + " " + std::to_string(length.max);
  return shared(
      key, false,
      [&] {
        const NodeId close = builder_.literal("\"", builder_.end());
        const NodeId text = builder_.repeat(
            length, [&](NodeId after) { return any_character(after); }, close);
        return builder_.literal("\"", text);
      },
      next);
}

NodeId JsonText::matching_string(const Regex& regex, NodeId next) {
  const NodeId close = builder_.literal("\"", next);
  const NodeId text = build_regex(
      builder_, regex,
      [this](const CharSet& chars, NodeId after) { return character(chars, after); }, close);
  return builder_.literal("\"", text);
}

namespace {

// A tree of the names' characters: where a key leaves it, anything may follow.
class KeyTree {
 public:
  using CharNodes = std::function<NodeId(const CharSet&, NodeId)>;
  KeyTree(Builder& builder, CharNodes nodes, NodeId free, NodeId close)
      : builder_(builder), nodes_(std::move(nodes)), free_(free), close_(close) {}

  // Keys that start with what names [begin, end) have in common up to `depth`.
  NodeId build(const std::vector<std::u32string>& names, size_t begin, size_t end, size_t depth) {
    if (builder_.full()) return builder_.never();
    std::vector<NodeId> starts;
    const bool is_name = begin < end && names[begin].size() == depth;
    if (is_name) {
      ++begin;
    } else {
      starts.push_back(close_);
    }
    CharSet taken;
    while (begin < end) {
      const char32_t c = names[begin][depth];
      size_t same = begin;
      while (same < end && names[same][depth] == c) ++same;
      taken = taken.united({{c, c}});
      starts.push_back(nodes_({{c, c}}, build(names, begin, same, depth + 1)));
      begin = same;
    }
    starts.push_back(nodes_(taken.inverted(), free_));
    return builder_.split(starts);
  }

 private:
  Builder& builder_;
  CharNodes nodes_;
  const NodeId free_;
  const NodeId close_;
};

std::u32string characters_of(std::string_view text) {
  std::u32string characters;
  for (size_t at = 0; at < text.size();) {
    const text::Utf8Step step = text::next_utf8(text, at);
    characters += step.code_point;
    at += step.length;
  }
  return characters;
}

}  // namespace

// Each character has one form here, so that no name comes in disguise.
NodeId JsonText::key_besides(std::vector<std::string> names, NodeId next) {
  std::vector<std::u32string> sorted;
  sorted.reserve(names.size());
  for (const std::string& name : names) sorted.push_back(characters_of(name));
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  const auto nodes = [this](const CharSet& chars, NodeId after) { return character(chars, after); };
  const NodeId close = builder_.literal("\"", next);
  const NodeId free = builder_.repeat(
      {0, kUnbounded}, [&](NodeId after) { return nodes(CharSet::all(), after); }, close);
  KeyTree tree(builder_, nodes, free, close);
  return builder_.literal("\"", tree.build(sorted, 0, sorted.size(), 0));
}

NodeId JsonText::number(const NumberRange& range, NodeId next) {
  if (range.low || range.high) return build_range(builder_, range, next);
  return shared(
      range.is_integer ? "integer" : "number", false,
      [&] {
        const auto digits = [&](uint32_t min, uint32_t max, NodeId after) {
          return builder_.repeat(
              {min, max},
              [&](NodeId rest) { return builder_.byte(ByteSet::range('0', '9'), rest); }, after);
        };
        NodeId after = builder_.end();
        if (!range.is_integer) {
          const NodeId exponent = digits(1, 2, after);
          const NodeId sign = builder_.split({exponent, builder_.byte(bytes_of("+-"), exponent)});
          after = builder_.split({after, builder_.byte(bytes_of("eE"), sign)});
          after =
              builder_.split({after, builder_.literal(".", digits(1, kFractionDigitsMax, after))});
        }
        const NodeId positive = builder_.split(
            {builder_.literal("0", after),
             builder_.byte(ByteSet::range('1', '9'), digits(0, kWholeDigitsMax - 1, after))});
        return builder_.split({positive, builder_.literal("-", positive)});
      },
      next);
}

NodeId JsonText::any_scalar(NodeId next) {
  return builder_.split({string({0, kUnbounded}, next), number({}, next),
                         builder_.one_of({"true", "false", "null"}, next)});
}

NodeId JsonText::any_value(NodeId next) {
  return builder_.split({any_object(next), any_array(next), any_scalar(next)});
}

NodeId JsonText::bracketed(std::string_view open, std::string_view close,
                           const Builder::Body& item) {
  const NodeId end = builder_.literal(close, builder_.end());
  const NodeId more = builder_.repeat(
      {0, kUnbounded}, [&](NodeId after) { return builder_.literal(",", space(item(after))); },
      space(end));
  return builder_.literal(open, space(builder_.split({end, item(more)})));
}

NodeId JsonText::any_object(NodeId next) {
  return shared(
      "object", true,
      [&] {
        return bracketed("{", "}", [this](NodeId after) {
          return string({0, kUnbounded}, colon(any_value(after)));
        });
      },
      next);
}

NodeId JsonText::any_array(NodeId next) {
  return shared(
      "array", true,
      [&] { return bracketed("[", "]", [this](NodeId after) { return any_value(after); }); }, next);
}

}  // namespace nanocp::grammar
