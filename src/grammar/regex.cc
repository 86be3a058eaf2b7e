#include "grammar/regex.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "grammar/limits.h"
#include "text/unicode.h"

namespace nanocp::grammar {
namespace {

using Kind = Regex::Kind;

const CharSet& digits() {
  static const CharSet kSet = {{'0', '9'}};
  return kSet;
}

const CharSet& word_chars() {
  static const CharSet kSet = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return kSet;
}

// Those of ECMA-262, whose patterns JSON schema has.
const CharSet& spaces() {
  static const CharSet kSet = {
      {9, 13},          {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
      {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
  return kSet;
}

CharSet any_but_newlines() {
  return CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).inverted();
}

CharSet single(char32_t c) {
  return {{c, c}};
}

Regex chars_regex(CharSet chars) {
  return {.kind = Kind::kChars, .chars = std::move(chars)};
}

Regex repeat_regex(Regex body, Builder::Count count) {
  Regex repeat = {.kind = Kind::kRepeat, .chars = {}, .parts = {}, .count = count};
  repeat.parts.push_back(std::move(body));
  return repeat;
}

class Parser {
 public:
  Parser(std::string_view pattern, RegexMatch match) : pattern_(pattern), match_(match) {}

  Result<Regex> parse() {
    NANOCP_ASSIGN_OR_RETURN(Regex regex, choice(0));
    if (at_ < pattern_.size()) return wrong("has a ) without a (");
    return regex;
  }

 private:
  bool done() const { return at_ >= pattern_.size(); }
  bool next_is(char c) const { return !done() && pattern_[at_] == c; }
  bool take(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  Error wrong(const std::string& what) const {
    return invalid_argument("pattern " + what + " at byte " + std::to_string(at_));
  }
  Error uncovered(const std::string& what) const {
    return unsupported("pattern: " + what + " at byte " + std::to_string(at_) +
                       " is not supported");
  }

  Result<char32_t> character() {
    const text::Utf8Step step = text::next_utf8(pattern_, at_);
    if (step.kind != text::Utf8Kind::kValid) return wrong("is not valid UTF-8");
    at_ += step.length;
    return step.code_point;
  }

  Result<Regex> choice(int32_t depth) {
    if (depth > kRegexDepthMax) {
      return wrong("has groups nested deeper than " + std::to_string(kRegexDepthMax));
    }
    Regex choice = {.kind = Kind::kChoice};
    do {
      NANOCP_ASSIGN_OR_RETURN(Regex part, sequence(depth));
      choice.parts.push_back(std::move(part));
    } while (take('|'));
    if (choice.parts.size() > 1) return choice;
    return std::move(choice.parts[0]);
  }

  // Anchors count at the ends of the alternatives that are not in a group.
  Result<Regex> sequence(int32_t depth) {
    Regex sequence = {.kind = Kind::kSequence};
    const bool is_top = depth == 0;
    const bool is_open = is_top && match_ == RegexMatch::kSearch;
    if (!(is_top && take('^')) && is_open) sequence.parts.push_back(anything());
    while (!done() && !next_is('|') && !next_is(')')) {
      const bool is_end =
          is_top && next_is('$') && (at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|');
      if (is_end) {
        ++at_;
        return sequence;
      }
      NANOCP_ASSIGN_OR_RETURN(Regex part, counted(depth));
      sequence.parts.push_back(std::move(part));
    }
    if (is_open) sequence.parts.push_back(anything());
    return sequence;
  }

  static Regex anything() { return repeat_regex(chars_regex(CharSet::all()), {0, kUnbounded}); }

  Result<Regex> counted(int32_t depth) {
    NANOCP_ASSIGN_OR_RETURN(Regex regex, atom(depth));
    NANOCP_ASSIGN_OR_RETURN(const std::optional<Builder::Count> count, quantifier());
    if (!count) return regex;
    take('?');  // lazy: the same texts
    if (next_is('+')) return uncovered("a possessive quantifier");
    NANOCP_ASSIGN_OR_RETURN(const std::optional<Builder::Count> second, quantifier());
    if (second) return wrong("has two quantifiers in a row");
    return repeat_regex(std::move(regex), *count);
  }

  Result<std::optional<Builder::Count>> quantifier() {
    using Found = std::optional<Builder::Count>;
    if (take('*')) return Found({0, kUnbounded});
    if (take('+')) return Found({1, kUnbounded});
    if (take('?')) return Found({0, 1});
    if (!next_is('{')) return Found();
    ++at_;
    NANOCP_ASSIGN_OR_RETURN(const uint32_t min, number());
    Builder::Count count = {min, min};
    if (take(',')) {
      count.max = kUnbounded;
      if (!next_is('}')) {
        NANOCP_ASSIGN_OR_RETURN(count.max, number());
      }
    }
    if (!take('}')) return wrong("has a { that is no count; write \\{ for the character");
    if (count.min > count.max) return wrong("has a count whose minimum is above its maximum");
    return Found(count);
  }

  Result<uint32_t> number() {
    uint32_t value = 0;
    const size_t begin = at_;
    while (!done() && pattern_[at_] >= '0' && pattern_[at_] <= '9') {
      value = value * 10 + static_cast<uint32_t>(pattern_[at_++] - '0');
      if (value > kRepeatMax) return wrong("has a count above " + std::to_string(kRepeatMax));
    }
    if (at_ == begin) return wrong("has a { that is no count; write \\{ for the character");
    return value;
  }

  Result<Regex> atom(int32_t depth) {
    if (next_is('*') || next_is('+') || next_is('?')) return wrong("has nothing to repeat");
    if (next_is('^') || next_is('$')) return uncovered("an anchor that is not at the end");
    if (take('(')) return group(depth);
    if (take('[')) {
      NANOCP_ASSIGN_OR_RETURN(CharSet set, char_class());
      return chars_regex(std::move(set));
    }
    if (take('.')) return chars_regex(any_but_newlines());
    if (take('\\')) {
      NANOCP_ASSIGN_OR_RETURN(CharSet set, escape(false));
      return chars_regex(std::move(set));
    }
    if (next_is('{')) return wrong("has nothing to repeat; write \\{ for the character");
    NANOCP_ASSIGN_OR_RETURN(const char32_t c, character());
    return chars_regex(single(c));
  }

  Result<Regex> group(int32_t depth) {
    if (take("?:")) {
    } else if (take("?P<") || (next_is('?') && pattern_.substr(at_).starts_with("?<") &&
                               !pattern_.substr(at_).starts_with("?<=") &&
                               !pattern_.substr(at_).starts_with("?<!") && take("?<"))) {
      const size_t end = pattern_.find('>', at_);
      if (end == std::string_view::npos) return wrong("has a group name without >");
      at_ = end + 1;
    } else if (next_is('?')) {
      return uncovered("a group that looks around or sets options");
    }
    NANOCP_ASSIGN_OR_RETURN(Regex inner, choice(depth + 1));
    if (!take(')')) return wrong("has a ( without a )");
    return inner;
  }

  Result<CharSet> char_class() {
    const bool is_inverted = take('^');
    CharSet set;
    bool is_first = true;
    while (is_first ? !done() : !done() && !next_is(']')) {
      if (next_is(']')) break;  // [] matches nothing, as in ECMA-262
      is_first = false;
      NANOCP_ASSIGN_OR_RETURN(const CharSet low, class_item());
      const bool is_range = next_is('-') && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
      if (!is_range) {
        set = set.united(low);
        continue;
      }
      ++at_;
      NANOCP_ASSIGN_OR_RETURN(const CharSet high, class_item());
      NANOCP_ASSIGN_OR_RETURN(const CharRange range, make_range(low, high));
      set = set.united({range});
    }
    if (!take(']')) return wrong("has a [ without a ]");
    return is_inverted ? set.inverted() : set;
  }

  Result<CharRange> make_range(const CharSet& low, const CharSet& high) const {
    const auto is_single = [](const CharSet& set) {
      return set.ranges().size() == 1 && set.ranges()[0].low == set.ranges()[0].high;
    };
    if (!is_single(low) || !is_single(high)) return wrong("has a range between classes");
    const CharRange range = {low.ranges()[0].low, high.ranges()[0].low};
    if (range.low > range.high) return wrong("has a range whose ends are the wrong way round");
    return range;
  }

  Result<CharSet> class_item() {
    if (take('\\')) return escape(true);
    if (pattern_.substr(at_).starts_with("[:")) return uncovered("a POSIX class");
    NANOCP_ASSIGN_OR_RETURN(const char32_t c, character());
    return single(c);
  }

  // Behind the backslash.
  Result<CharSet> escape(bool in_class) {
    if (done()) return wrong("ends with a backslash");
    const char c = pattern_[at_];
    ++at_;
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return digits().inverted();
      case 'w':
        return word_chars();
      case 'W':
        return word_chars().inverted();
      case 's':
        return spaces();
      case 'S':
        return spaces().inverted();
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 't':
        return single('\t');
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case '0':
        return single(0);
      case 'b':
        if (in_class) return single('\b');
        break;
      case 'x':
        return hex(2, 2);
      case 'u':
        return take('{') ? braced_hex() : hex(4, 4);
      default:
        break;
    }
    const bool is_letter =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    --at_;
    if (is_letter) return uncovered(std::string("\\") + c);
    NANOCP_ASSIGN_OR_RETURN(const char32_t literal, character());
    return single(literal);
  }

  Result<CharSet> braced_hex() {
    NANOCP_ASSIGN_OR_RETURN(CharSet set, hex(1, 6));
    if (!take('}')) return wrong("has \\u{ without }");
    return set;
  }

  Result<CharSet> hex(size_t digits_min, size_t digits_max) {
    uint32_t value = 0;
    size_t count = 0;
    for (; count < digits_max && !done(); ++count, ++at_) {
      const char c = pattern_[at_];
      const bool is_digit = c >= '0' && c <= '9';
      const auto lower = static_cast<char>(c | 0x20);
      if (!is_digit && !(lower >= 'a' && lower <= 'f')) break;
      value = value * 16 + static_cast<uint32_t>(is_digit ? c - '0' : lower - 'a' + 10);
    }
    const CharSet set = single(static_cast<char32_t>(value));
    if (count < digits_min || set.empty()) return wrong("has a number of no character");
    return set;
  }

  const std::string_view pattern_;
  const RegexMatch match_;
  size_t at_ = 0;
};

}  // namespace

Result<Regex> parse_regex(std::string_view pattern, RegexMatch match) {
  if (pattern.size() > kTextBytesMax) {
    return invalid_argument("pattern has " + std::to_string(pattern.size()) + " bytes, at most " +
                            std::to_string(kTextBytesMax) + " are allowed");
  }
  return Parser(pattern, match).parse();
}

TextLength text_length(const Regex& regex) {
  const auto bounded = [](uint64_t length) { return std::min<uint64_t>(length, kUnbounded); };
  TextLength length = {0, 0};
  switch (regex.kind) {
    case Kind::kChars:
      return {1, 1};
    case Kind::kSequence:
      for (const Regex& part : regex.parts) {
        const TextLength more = text_length(part);
        length = {bounded(length.min + more.min), bounded(length.max + more.max)};
      }
      return length;
    case Kind::kChoice:
      length.min = kUnbounded;
      for (const Regex& part : regex.parts) {
        const TextLength other = text_length(part);
        length = {std::min(length.min, other.min), std::max(length.max, other.max)};
      }
      return length;
    case Kind::kRepeat: {
      const TextLength once = text_length(regex.parts[0]);
      return {bounded(once.min * regex.count.min), bounded(once.max * regex.count.max)};
    }
  }
  return length;
}

NodeId build_regex(Builder& builder, const Regex& regex, const CharNodes& chars, NodeId next) {
  if (builder.full()) return builder.never();
  switch (regex.kind) {
    case Kind::kChars:
      return chars(regex.chars, next);
    case Kind::kSequence:
      for (size_t i = regex.parts.size(); i > 0; --i) {
        next = build_regex(builder, regex.parts[i - 1], chars, next);
      }
      return next;
    case Kind::kChoice: {
      std::vector<NodeId> starts;
      for (const Regex& part : regex.parts) {
        starts.push_back(build_regex(builder, part, chars, next));
      }
      return builder.split(starts);
    }
    case Kind::kRepeat:
      return builder.repeat(
          regex.count,
          [&](NodeId after) { return build_regex(builder, regex.parts[0], chars, after); }, next);
  }
  return next;
}

}  // namespace nanocp::grammar
