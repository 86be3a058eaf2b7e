// Ranges of numbers as automata over their decimal digits. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "grammar/builder.h"

namespace nanocp::grammar {

// Without a sign; without zeros in front of `whole` (empty: 0) and at the end of `fraction`.
struct Decimal {
  bool is_negative = false;
  std::string whole = {};
  std::string fraction = {};
};

// As precisely as a double needs; an error for what is no number or beyond the digits below.
Result<Decimal> decimal_of(double value);
// With as many digits as are generated.
Decimal largest_decimal(bool is_negative);
// Negative, zero or positive: a is below, equal to or above b.
int compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal value;
  bool is_excluded = false;
};

struct NumberRange {
  std::optional<Bound> low = {};
  std::optional<Bound> high = {};
  bool is_integer = false;
};

constexpr size_t kWholeDigitsMax = 18;
constexpr size_t kFractionDigitsMax = 18;

// Numbers in the range, written without an exponent. Requires: a bound on some side.
NodeId build_range(Builder& builder, const NumberRange& range, NodeId next);

}  // namespace nanocp::grammar
