#include "sim/adversary.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

namespace nanocp::sim {
namespace {

// Outputs are int32 in a request, and prompts are held in memory.
constexpr int64_t kTokensMax = int64_t{1} << 24;

class Drawer {
 public:
  Drawer(const AdversaryTarget& target, Random random)
      : target_(target),
        random_(random),
        smallest_(*std::min_element(target.kv_tokens.begin(), target.kv_tokens.end())),
        largest_(*std::max_element(target.kv_tokens.begin(), target.kv_tokens.end())),
        all_(std::accumulate(target.kv_tokens.begin(), target.kv_tokens.end(), int64_t{0})) {}

  Arrival draw(AdversaryKind kind) {
    if (kind == AdversaryKind::kMixed) {
      kind = kAdversaries[random_.below(kAdversaries.size() - 1)].kind;
    }
    Arrival arrival = draw_lengths(kind);
    arrival.num_prompt_tokens = std::clamp<int64_t>(arrival.num_prompt_tokens, 1, kTokensMax);
    arrival.num_output_tokens = std::clamp<int64_t>(arrival.num_output_tokens, 0, kTokensMax);
    arrival.time_us = draw_time_us(kind);
    return arrival;
  }

 private:
  Arrival draw_lengths(AdversaryKind kind) {
    switch (kind) {
      case AdversaryKind::kBursts:
        return chance(4) ? sized(up_to(largest_)) : sized(up_to(smallest_ / 8));
      case AdversaryKind::kAllLong:
        return sized(random_.between(smallest_ - smallest_ / 3, largest_));
      case AdversaryKind::kLimits:
        return draw_at_limit();
      case AdversaryKind::kCancelStorm:
        return draw_given_up();
      case AdversaryKind::kNoOutput:
        return draw_without_output();
      case AdversaryKind::kGrowth:
        return draw_growing();
      case AdversaryKind::kPriorities:
        return draw_with_priority();
      case AdversaryKind::kStream:
      case AdversaryKind::kMixed:
        return chance(8) ? sized(random_.between(largest_ / 2, largest_)) : sized(up_to(6));
    }
    return {};
  }

  // Some instances full to the last token, one token less, or one more than they hold.
  Arrival draw_at_limit() {
    const auto num_instances = std::ssize(target_.kv_tokens);
    int64_t limit = chance(2) ? largest_ : all_;
    if (chance(3)) limit = smallest_ * random_.between(1, num_instances);
    return sized(limit + random_.between(-1, 1));
  }

  // One draw after the other: compilers are free in the order of a call's arguments.
  Arrival draw_growing() {
    const int64_t num_prompt = up_to(4);
    const int64_t most = chance(4) ? all_ : largest_;
    return of(num_prompt, up_to(most));
  }

  Arrival draw_given_up() {
    Arrival arrival = chance(4) ? sized(up_to(all_)) : sized(up_to(smallest_ / 2));
    if (chance(8)) return arrival;
    arrival.cancel_after_us = chance(4) ? 0 : random_.between(0, target_.duration_us / 4);
    return arrival;
  }

  Arrival draw_without_output() {
    const int64_t num_prompt = chance(4) ? up_to(largest_) : up_to(smallest_ / 4);
    if (chance(3)) return of(num_prompt, 0);
    return of(num_prompt, chance(4) ? up_to(16) : 1);
  }

  Arrival draw_with_priority() {
    Arrival arrival = chance(3) ? sized(up_to(largest_)) : sized(up_to(smallest_ / 4));
    arrival.priority = static_cast<int32_t>(random_.between(-2, 2));
    return arrival;
  }

  // Bursts and storms come at a few moments, requests in line at an even pace, all others whenever.
  int64_t draw_time_us(AdversaryKind kind) {
    const int64_t last_us = target_.duration_us - 1;
    if (kind == AdversaryKind::kBursts || kind == AdversaryKind::kCancelStorm) {
      constexpr int64_t kNumMoments = 4;
      return last_us * static_cast<int64_t>(random_.below(kNumMoments)) / kNumMoments;
    }
    const bool is_all_at_once = kind == AdversaryKind::kLimits && chance(2);
    return is_all_at_once ? 0 : random_.between(0, last_us);
  }

  // So many tokens of KV: the last output token is never stored.
  Arrival sized(int64_t num_kv_tokens) {
    const int64_t num_prompt = up_to(num_kv_tokens);
    return of(num_prompt, num_kv_tokens - num_prompt + 1);
  }

  static Arrival of(int64_t num_prompt, int64_t num_output) {
    Arrival arrival;
    arrival.num_prompt_tokens = num_prompt;
    arrival.num_output_tokens = num_output;
    return arrival;
  }

  bool chance(uint64_t one_in) { return random_.below(one_in) == 0; }
  int64_t up_to(int64_t most) { return random_.between(1, std::max<int64_t>(1, most)); }

  const AdversaryTarget& target_;
  Random random_;
  int64_t smallest_;  // KV tokens of one instance
  int64_t largest_;
  int64_t all_;
};

}  // namespace

Result<AdversaryKind> parse_adversary(std::string_view name) {
  std::string names;
  for (const AdversaryName& known : kAdversaries) {
    if (known.name == name) return known.kind;
    if (!names.empty()) names += ", ";
    names += known.name;
  }
  return not_found("adversarial workload " + quoted(name) + " is unknown: use one of " + names);
}

std::vector<Arrival> draw_adversarial_load(AdversaryKind kind, const AdversaryTarget& target,
                                           Random random) {
  Drawer drawer(target, random);
  std::vector<Arrival> arrivals;
  for (int64_t i = 0; i < target.num_requests; ++i) arrivals.push_back(drawer.draw(kind));
  std::stable_sort(arrivals.begin(), arrivals.end(),
                   [](const Arrival& a, const Arrival& b) { return a.time_us < b.time_us; });
  return arrivals;
}

}  // namespace nanocp::sim
