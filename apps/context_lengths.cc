#include "apps/context_lengths.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/random.h"

namespace nanocp::apps {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 31;
constexpr int64_t kRequestsMax = 1 << 20;

Error malformed(const std::string& whole, const std::string& what) {
  return invalid_argument("contexts '" + whole + "': " + what +
                          "; write LENGTHxREQUESTS, e.g. 4096x64,lognormal(1k,4k)x16");
}

Result<int64_t> parse_number(std::string_view text, int64_t most, const std::string& whole) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value < 1 || value > most) {
    return malformed(whole,
                     sim::quoted(text) + " is not a number from 1 to " + std::to_string(most));
  }
  return value;
}

Result<ContextGroup> parse_group(std::string_view text, const std::string& whole) {
  // Names of distributions have no x.
  const size_t times = text.rfind('x');
  const bool has_count = times != std::string_view::npos;
  const auto lengths = sim::LengthDistribution::parse(text.substr(0, times));
  if (!lengths.ok()) return malformed(whole, lengths.error().message);
  if (lengths->max() > kTokensMax) return malformed(whole, "lengths end at 2^31 tokens");
  ContextGroup group{.lengths = *lengths, .count = 1};
  if (has_count) {
    NANOCP_ASSIGN_OR_RETURN(group.count, parse_number(text.substr(times + 1), kRequestsMax, whole));
  }
  return group;
}

Error bad_line(const std::string& file, int64_t number, const std::string& field) {
  return invalid_argument(file + ":" + std::to_string(number) + ": '" + field +
                          "' is not a context length in tokens");
}

}  // namespace

Result<std::vector<ContextGroup>> parse_contexts(const std::string& text) {
  std::vector<ContextGroup> groups;
  int64_t total = 0;
  for (const std::string_view part : sim::split_outside(text, ',')) {
    NANOCP_ASSIGN_OR_RETURN(ContextGroup group, parse_group(part, text));
    total += group.count;
    if (total > kRequestsMax) {
      return malformed(text, "more than " + std::to_string(kRequestsMax) + " requests");
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<int64_t> draw_contexts(const std::vector<ContextGroup>& groups, int64_t num_copies,
                                   uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> contexts;
  for (const ContextGroup& group : groups) {
    for (int64_t i = 0; i < group.count * num_copies; ++i) {
      contexts.push_back(group.lengths.draw(random));
    }
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
