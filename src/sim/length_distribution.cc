#include "sim/length_distribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

namespace nanocp::sim {
namespace {

constexpr double kTokensMax = 1e9;
constexpr double kQuantile95 = 1.6448536269514722;  // of the standard normal distribution

std::string_view trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

Error bad(std::string_view text, std::string_view what) {
  return invalid_argument("length distribution " + quoted(text) + ": " + std::string(what));
}

Result<double> parse_number(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  if (!is_whole || !std::isfinite(value)) {
    return invalid_argument(quoted(text) + " is not a number");
  }
  return value;
}

// Box and Muller, 1958.
double draw_normal(Random& random) {
  const double u = 1.0 - random.uniform();
  const double v = random.uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace

std::string quoted(std::string_view text) {
  std::string result = "'";
  result += text;
  result += '\'';
  return result;
}

std::vector<std::string_view> split_outside(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '(') ++depth;
    if (text[i] == ')') --depth;
    if (text[i] != separator || depth != 0) continue;
    pieces.push_back(trim(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  pieces.push_back(trim(text.substr(begin)));
  return pieces;
}

Result<double> parse_tokens(std::string_view text) {
  std::string_view digits = trim(text);
  double factor = 1.0;
  if (!digits.empty() && (digits.back() == 'k' || digits.back() == 'm')) {
    factor = digits.back() == 'k' ? 1e3 : 1e6;
    digits.remove_suffix(1);
  }
  NANOCP_ASSIGN_OR_RETURN(const double value, parse_number(digits));
  const double tokens = value * factor;
  if (!(tokens > 0.0) || tokens > kTokensMax) {
    return invalid_argument(quoted(text) + " must be above 0 and at most 1e9 tokens");
  }
  return tokens;
}

Result<double> parse_share(std::string_view text) {
  std::string_view digits = trim(text);
  const bool is_percent = !digits.empty() && digits.back() == '%';
  if (is_percent) digits.remove_suffix(1);
  NANOCP_ASSIGN_OR_RETURN(const double value, parse_number(trim(digits)));
  const double share = is_percent ? value / 100.0 : value;
  if (share < 0.0 || share > 1.0) {
    return invalid_argument(quoted(text) + " is not a share of 0 to 100 %");
  }
  return share;
}

Result<LengthDistribution> LengthDistribution::parse(std::string_view text) {
  LengthDistribution result;
  const auto pieces = split_outside(text, '+');
  double total = 0.0;
  for (const std::string_view piece : pieces) {
    const size_t space = piece.find('%');
    const size_t bracket = piece.find('(');
    const bool has_share = space != std::string_view::npos && space < bracket;
    if (!has_share && pieces.size() > 1)
      return bad(piece, "a part of a mixture starts with its share, as in 95% 4k");
    double share = 1.0;
    if (has_share) {
      const Result<double> parsed = parse_share(piece.substr(0, space + 1));
      if (!parsed.ok()) return bad(text, parsed.error().message);
      share = *parsed;
    }
    NANOCP_ASSIGN_OR_RETURN(Part part,
                            parse_part(has_share ? trim(piece.substr(space + 1)) : piece));
    part.share = share;
    total += share;
    result.parts_.push_back(std::move(part));
  }
  if (std::abs(total - 1.0) > 1e-6) return bad(text, "shares must sum up to 100 %");
  return result;
}

Result<LengthDistribution::Part> LengthDistribution::parse_part(std::string_view text) {
  const size_t open = text.find('(');
  if (open == std::string_view::npos) {
    const Result<double> tokens = parse_tokens(text);
    if (!tokens.ok()) return bad(text, tokens.error().message);
    Part part;
    part.a = part.b = part.min = part.max = std::round(*tokens);
    return part;
  }
  if (text.back() != ')') return bad(text, "the closing parenthesis is missing");
  return make_part(trim(text.substr(0, open)), text.substr(open + 1, text.size() - open - 2), text);
}

Result<LengthDistribution::Part> LengthDistribution::make_part(std::string_view name,
                                                               std::string_view arguments,
                                                               std::string_view text) {
  if (name == "quantiles") return parse_quantiles(arguments, text);
  std::vector<double> values;
  for (const std::string_view piece : split_outside(arguments, ',')) {
    const Result<double> tokens = parse_tokens(piece);
    if (!tokens.ok()) return bad(text, tokens.error().message);
    values.push_back(*tokens);
  }
  Part part;
  const bool is_normal = name == "normal";
  if (values.size() != (is_normal ? 4U : 2U)) {
    return bad(text, is_normal ? "takes mean, standard deviation, least and largest"
                               : "takes two lengths");
  }
  part.a = values[0];
  part.b = values[1];
  part.min = is_normal ? values[2] : values[0];
  part.max = is_normal ? values[3] : values[1];
  if (part.min > part.max) return bad(text, "the first limit is above the second");
  if (is_normal) {
    part.kind = Kind::kNormal;
  } else if (name == "uniform") {
    part.kind = Kind::kUniform;
  } else if (name == "loguniform") {
    part.kind = Kind::kLogUniform;
  } else if (name == "lognormal") {
    part.kind = Kind::kLogNormal;
    part.min = std::max(1.0, part.a / 4.0);
    part.max = part.b * 4.0;
  } else {
    return bad(text, "is none of uniform, loguniform, lognormal, normal, quantiles");
  }
  return part;
}

Result<LengthDistribution::Part> LengthDistribution::parse_quantiles(std::string_view arguments,
                                                                     std::string_view text) {
  Part part;
  part.kind = Kind::kQuantiles;
  for (const std::string_view piece : split_outside(arguments, ',')) {
    const size_t colon = piece.find(':');
    if (colon == std::string_view::npos) return bad(text, "takes share:length pairs");
    const Result<double> share = parse_share(piece.substr(0, colon));
    if (!share.ok()) return bad(text, share.error().message);
    const Result<double> tokens = parse_tokens(piece.substr(colon + 1));
    if (!tokens.ok()) return bad(text, tokens.error().message);
    const bool rises = part.quantiles.empty() || (*share > part.quantiles.back().first &&
                                                  *tokens >= part.quantiles.back().second);
    if (!rises) return bad(text, "shares and lengths must rise");
    part.quantiles.emplace_back(*share, *tokens);
  }
  const bool is_complete = part.quantiles.size() >= 2 && part.quantiles.front().first == 0.0 &&
                           part.quantiles.back().first == 1.0;
  if (!is_complete) return bad(text, "must start at 0 and end at 100 %");
  part.min = part.quantiles.front().second;
  part.max = part.quantiles.back().second;
  return part;
}

double LengthDistribution::draw_part(const Part& part, Random& random) {
  switch (part.kind) {
    case Kind::kUniform:
      return part.a + (part.b - part.a) * random.uniform();
    case Kind::kLogUniform:
      return part.a * std::pow(part.b / part.a, random.uniform());
    case Kind::kLogNormal: {
      const double mean = std::log(part.a * part.b) / 2.0;
      const double sd = std::log(part.b / part.a) / (2.0 * kQuantile95);
      return std::exp(mean + sd * draw_normal(random));
    }
    case Kind::kNormal:
      return part.a + part.b * draw_normal(random);
    case Kind::kQuantiles:
      break;
  }
  const double u = random.uniform();
  auto high = std::find_if(part.quantiles.begin() + 1, part.quantiles.end() - 1,
                           [u](const auto& point) { return u <= point.first; });
  const auto low = high - 1;
  return low->second + (high->second - low->second) * (u - low->first) / (high->first - low->first);
}

int64_t LengthDistribution::draw(Random& random) const {
  double u = parts_.size() > 1 ? random.uniform() : 0.0;
  size_t i = 0;
  while (i + 1 < parts_.size() && u >= parts_[i].share) u -= parts_[i++].share;
  const double tokens = std::clamp(draw_part(parts_[i], random), parts_[i].min, parts_[i].max);
  return std::max<int64_t>(1, std::llround(tokens));
}

int64_t LengthDistribution::max() const {
  double most = 1.0;
  for (const Part& part : parts_) most = std::max(most, part.max);
  return std::llround(most);
}

}  // namespace nanocp::sim
