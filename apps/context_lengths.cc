#include "apps/context_lengths.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <numbers>
#include <string_view>
#include <utility>

#include "base/random.h"

namespace nanocp::apps {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 31;
constexpr int64_t kRequestsMax = 1 << 20;
constexpr double kNineTenths = 1.6448536269514722;  // standard deviations to the 95th percentile

using Kind = ContextGroup::Kind;
constexpr std::array<std::pair<std::string_view, Kind>, 3> kDistributions = {{
    {"uniform", Kind::kUniform},
    {"loguniform", Kind::kLogUniform},
    {"lognormal", Kind::kLogNormal},
}};

// Appended to, since g++ 12 warns of what it inlines into "'" + std::string.
std::string quoted(std::string_view text) {
  std::string result("'");
  result.append(text).push_back('\'');
  return result;
}

Error malformed(const std::string& whole, const std::string& what) {
  return invalid_argument("contexts '" + whole + "': " + what +
                          "; write TOKENSxREQUESTS or NAME:LOW:HIGHxREQUESTS, e.g. "
                          "4096x64,lognormal:1k:4kx16");
}

Result<int64_t> parse_number(std::string_view text, int64_t most, const std::string& whole) {
  std::string_view digits = text;
  int64_t unit = 1;
  if (!text.empty() && (text.back() == 'k' || text.back() == 'M')) {
    unit = text.back() == 'k' ? 1 << 10 : 1 << 20;
    digits.remove_suffix(1);
  }
  int64_t value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code != std::errc() || end != digits.data() + digits.size() || value < 1 ||
      value > most / unit) {
    return malformed(whole, quoted(text) + " is not a number from 1 to " + std::to_string(most));
  }
  return value * unit;
}

// What stands before the number of requests.
Status parse_length(std::string_view text, const std::string& whole, ContextGroup& group) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    NANOCP_ASSIGN_OR_RETURN(group.low, parse_number(text, kTokensMax, whole));
    group.high = group.low;
    return ok_status();
  }
  const std::string_view name = text.substr(0, colon);
  const auto* const known = std::find_if(kDistributions.begin(), kDistributions.end(),
                                         [name](const auto& entry) { return entry.first == name; });
  if (known == kDistributions.end()) {
    return malformed(whole,
                     quoted(name) + " is no distribution (uniform, loguniform or lognormal)");
  }
  group.kind = known->second;
  const std::string_view range = text.substr(colon + 1);
  const size_t between = std::min(range.find(':'), range.size());
  NANOCP_ASSIGN_OR_RETURN(group.low, parse_number(range.substr(0, between), kTokensMax, whole));
  const std::string_view high = between < range.size() ? range.substr(between + 1) : "";
  NANOCP_ASSIGN_OR_RETURN(group.high, parse_number(high, kTokensMax, whole));
  if (group.low <= group.high) return ok_status();
  return malformed(whole, quoted(text) + " ends below its beginning");
}

// Box and Muller (1958).
double standard_normal(Random& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * random.uniform());
}

int64_t draw(const ContextGroup& group, Random& random) {
  if (group.kind == Kind::kFixed) return group.low;
  if (group.kind == Kind::kUniform) return random.between(group.low, group.high);
  const double low = std::log(static_cast<double>(group.low));
  const double high = std::log(static_cast<double>(group.high));
  if (group.kind == Kind::kLogUniform) {
    const auto length =
        static_cast<int64_t>(std::llround(std::exp(low + (high - low) * random.uniform())));
    return std::clamp(length, group.low, group.high);
  }
  const double deviation = (high - low) / (2.0 * kNineTenths);
  const double exponent = (low + high) / 2.0 + deviation * standard_normal(random);
  const double most = std::log(static_cast<double>(kTokensMax));
  return std::max<int64_t>(1, std::llround(std::exp(std::min(exponent, most))));
}

Error bad_line(const std::string& file, int64_t number, const std::string& field) {
  return invalid_argument(file + ":" + std::to_string(number) + ": '" + field +
                          "' is not a context length in tokens");
}

}  // namespace

Result<std::vector<ContextGroup>> parse_contexts(const std::string& text) {
  std::vector<ContextGroup> groups;
  int64_t total = 0;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const size_t times = part.find('x');
    ContextGroup group{.count = 1};
    NANOCP_RETURN_IF_ERROR(parse_length(part.substr(0, times), text, group));
    if (times != std::string_view::npos) {
      NANOCP_ASSIGN_OR_RETURN(group.count,
                              parse_number(part.substr(times + 1), kRequestsMax, text));
    }
    total += group.count;
    if (total > kRequestsMax) {
      return malformed(text, "more than " + std::to_string(kRequestsMax) + " requests");
    }
    groups.push_back(group);
    begin = end + 1;
  }
  return groups;
}

std::vector<int64_t> draw_contexts(const std::vector<ContextGroup>& groups, int64_t num_copies,
                                   uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> contexts;
  for (const ContextGroup& group : groups) {
    for (int64_t i = 0; i < group.count * num_copies; ++i) contexts.push_back(draw(group, random));
  }
  return contexts;
}

Result<std::vector<int64_t>> read_context_file(const std::string& file) {
  std::ifstream in(file);
  if (!in) return not_found(file + ": cannot be read");
  std::vector<int64_t> contexts;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    const std::string field = line.substr(0, line.find_first_of(",\r"));
    if (field.empty()) continue;
    const auto value = parse_number(field, kTokensMax, field);
    if (!value.ok() && number == 1) continue;  // a heading
    if (!value.ok()) return bad_line(file, number, field);
    contexts.push_back(*value);
    if (std::ssize(contexts) > kRequestsMax) {
      return invalid_argument(file + ": more than " + std::to_string(kRequestsMax) + " requests");
    }
  }
  if (contexts.empty()) return invalid_argument(file + ": no context length in it");
  return contexts;
}

}  // namespace nanocp::apps
