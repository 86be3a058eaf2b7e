#include "grammar/decimal.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>

namespace nanocp::grammar {
namespace {

int compare_sizes(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (const int order = a.whole.compare(b.whole)) return order;
  return a.fraction.compare(b.fraction);
}

bool is_zero(const Decimal& value) {
  return value.whole.empty() && value.fraction.empty();
}

ByteSet digit_range(int low, int high) {
  return ByteSet::range(static_cast<uint8_t>('0' + low), static_cast<uint8_t>('0' + high));
}

// Numbers without a sign between two bounds, digit by digit from the left. As long as the digits
// are those of a bound, the next one is held by it.
class RangeDigits {
 public:
  struct Limits {
    Bound low;
    Bound high;
    bool is_integer;
  };
  RangeDigits(Builder& builder, const Limits& limits, NodeId next)
      : builder_(builder), limits_(limits), next_(next) {}

  NodeId build() {
    std::vector<NodeId> starts;
    const size_t shortest = std::max<size_t>(1, limits_.low.value.whole.size());
    const size_t longest = std::max<size_t>(1, limits_.high.value.whole.size());
    for (size_t length = shortest; length <= longest; ++length) {
      length_ = length;
      held_.clear();
      const bool at_low = length == shortest;
      const bool at_high = length == longest;
      starts.push_back(whole(0, at_low, at_high));
    }
    return builder_.split(starts);
  }

 private:
  // Digit `index` of a bound's whole part, as if it had `length_` digits.
  int whole_digit(const Bound& bound, size_t index) const {
    const std::string& digits = bound.value.whole;
    const size_t missing = length_ - std::min(length_, digits.size());
    return index < missing ? 0 : digits[index - missing] - '0';
  }
  static int fraction_digit(const Bound& bound, size_t index) {
    const std::string& digits = bound.value.fraction;
    return index < digits.size() ? digits[index] - '0' : 0;
  }

  NodeId whole(size_t index, bool at_low, bool at_high) {
    if (index == length_) return after_whole(at_low, at_high);
    // Digits that no bound holds are the same for all lengths.
    if (!at_low && !at_high && index > 0) return free_whole(length_ - index);
    const auto key = std::tuple(index, at_low, at_high);
    if (const auto found = held_.find(key); found != held_.end()) return found->second;
    const bool is_first = index == 0 && length_ > 1;
    int low = at_low ? whole_digit(limits_.low, index) : 0;
    const int high = at_high ? whole_digit(limits_.high, index) : 9;
    if (is_first) low = std::max(low, 1);
    const NodeId node =
        digit(low, high, at_low, at_high, whole_digit(limits_.low, index),
              [&](bool low_held, bool high_held) { return whole(index + 1, low_held, high_held); });
    held_.emplace(key, node);
    return node;
  }

  // Digits low .. high, of which the first may be the low bound's and the last the high bound's.
  template <typename Rest>
  NodeId digit(int low, int high, bool at_low, bool at_high, int low_digit, Rest rest) {
    std::vector<NodeId> starts;
    int first = low;
    int last = high;
    if (at_low && at_high && low == high && low == low_digit) {
      return builder_.byte(digit_range(low, low), rest(true, true));
    }
    if (at_low && low <= high && low == low_digit) {
      starts.push_back(builder_.byte(digit_range(low, low), rest(true, false)));
      ++first;
    }
    if (at_high && first <= high) {
      starts.push_back(builder_.byte(digit_range(high, high), rest(false, true)));
      --last;
    }
    if (first <= last) {
      starts.push_back(builder_.byte(digit_range(first, last), rest(false, false)));
    }
    return builder_.split(starts);
  }

  NodeId free_whole(size_t num_digits) {
    if (num_digits == 0) return after_whole(false, false);
    const auto found = free_.find(num_digits);
    if (found != free_.end()) return found->second;
    const NodeId node = builder_.byte(digit_range(0, 9), free_whole(num_digits - 1));
    free_.emplace(num_digits, node);
    return node;
  }

  NodeId after_whole(bool at_low, bool at_high) {
    std::vector<NodeId> starts;
    if (may_stop(0, at_low, at_high)) starts.push_back(next_);
    if (!limits_.is_integer) {
      starts.push_back(builder_.literal(".", fraction(0, at_low, at_high)));
    }
    return builder_.split(starts);
  }

  // Whether the number may be over with `index` digits of the fraction.
  bool may_stop(size_t index, bool at_low, bool at_high) const {
    const bool is_low = index >= limits_.low.value.fraction.size();  // equal to it, when held by it
    const bool is_high = index >= limits_.high.value.fraction.size();
    if (at_low && (!is_low || limits_.low.is_excluded)) return false;
    return !(at_high && is_high && limits_.high.is_excluded);
  }

  NodeId fraction(size_t index, bool at_low, bool at_high) {
    if (index == kFractionDigitsMax) return builder_.never();
    const auto key = std::tuple(index, at_low, at_high);
    if (const auto found = fractions_.find(key); found != fractions_.end()) return found->second;
    const int low = at_low ? fraction_digit(limits_.low, index) : 0;
    const int high = at_high ? fraction_digit(limits_.high, index) : 9;
    const NodeId node = digit(low, high, at_low, at_high, low, [&](bool low_held, bool high_held) {
      const NodeId more = fraction(index + 1, low_held, high_held);
      return may_stop(index + 1, low_held, high_held) ? builder_.split({next_, more}) : more;
    });
    fractions_.emplace(key, node);
    return node;
  }

  Builder& builder_;
  const Limits limits_;
  const NodeId next_;
  size_t length_ = 0;
  using Held = std::map<std::tuple<size_t, bool, bool>, NodeId>;
  Held held_;       // of the current length
  Held fractions_;  // of all
  std::map<size_t, NodeId> free_;
};

Bound largest() {
  return {.value = largest_decimal(false)};
}

Bound zero(bool is_excluded) {
  return {.value = {}, .is_excluded = is_excluded};
}

NodeId build_part(Builder& builder, const RangeDigits::Limits& limits, NodeId next) {
  const int order = compare_sizes(limits.low.value, limits.high.value);
  const bool is_empty =
      order > 0 || (order == 0 && (limits.low.is_excluded || limits.high.is_excluded));
  return is_empty ? builder.never() : RangeDigits(builder, limits, next).build();
}

}  // namespace

Result<Decimal> decimal_of(double value) {
  std::array<char, 400> text;
  if (!std::isfinite(value)) return invalid_argument("is not a finite number");
  Decimal decimal = {.is_negative = value < 0};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), std::abs(value),
                                          std::chars_format::fixed);
  const std::string digits(text.data(), error == std::errc() ? end : text.data());
  const size_t point = std::min(digits.find('.'), digits.size());
  decimal.whole = digits.substr(0, point);
  if (point < digits.size()) decimal.fraction = digits.substr(point + 1);
  decimal.whole.erase(0, decimal.whole.find_first_not_of('0'));
  decimal.fraction.erase(decimal.fraction.find_last_not_of('0') + 1);
  if (decimal.fraction.size() >= kFractionDigitsMax) {
    return unsupported("has " + std::to_string(decimal.fraction.size()) +
                       " digits behind the point, at most " +
                       std::to_string(kFractionDigitsMax - 1) + " are supported");
  }
  return decimal;
}

Decimal largest_decimal(bool is_negative) {
  return {.is_negative = is_negative, .whole = std::string(kWholeDigitsMax, '9')};
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) return a.is_negative ? -1 : 1;
  return a.is_negative ? compare_sizes(b, a) : compare_sizes(a, b);
}

// Those at and above zero, and those below behind a minus sign.
NodeId build_range(Builder& builder, const NumberRange& range, NodeId next) {
  std::vector<NodeId> starts;
  const bool has_positive = !range.high || !range.high->value.is_negative;
  if (has_positive) {
    const bool is_above_zero = range.low && !range.low->value.is_negative;
    starts.push_back(build_part(builder,
                                {.low = is_above_zero ? *range.low : zero(false),
                                 .high = range.high.value_or(largest()),
                                 .is_integer = range.is_integer},
                                next));
  }
  const bool has_negative =
      !range.low || (range.low->value.is_negative && !is_zero(range.low->value));
  if (has_negative) {
    const bool is_below_zero = range.high && range.high->value.is_negative;
    const NodeId part = build_part(builder,
                                   {.low = is_below_zero ? *range.high : zero(true),
                                    .high = range.low.value_or(largest()),
                                    .is_integer = range.is_integer},
                                   next);
    starts.push_back(builder.literal("-", part));
  }
  return builder.split(starts);
}

}  // namespace nanocp::grammar
