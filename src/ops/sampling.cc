#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/check.h"
#include "base/random.h"

namespace nanocp::ops {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5F;

struct Candidate {
  TokenId token;
  float logit;
  double weight;  // exp((logit - max) / temperature), in proportion to the probability
};

bool better(float a_logit, TokenId a, float b_logit, TokenId b) {
  return a_logit != b_logit ? a_logit > b_logit : a < b;
}

bool better_candidate(const Candidate& a, const Candidate& b) {
  return better(a.logit, a.token, b.logit, b.token);
}

float defined(float logit) {
  if (std::isnan(logit)) return kImpossible;
  return std::min(logit, std::numeric_limits<float>::max());
}

float& at(std::span<float> logits, TokenId token) {
  return logits[static_cast<size_t>(token)];
}

bool in_vocab(std::span<const float> logits, TokenId token) {
  return token >= 0 && static_cast<size_t>(token) < logits.size();
}

void apply_repetition(std::span<float> logits, float penalty, const SamplingHistory& history) {
  std::vector<bool> seen(logits.size(), false);
  for (const auto tokens : {history.prompt, history.output}) {
    for (const TokenId token : tokens) {
      if (!in_vocab(logits, token) || seen[static_cast<size_t>(token)]) continue;
      seen[static_cast<size_t>(token)] = true;
      float& logit = at(logits, token);
      logit = defined(logit > 0.0F ? logit / penalty : logit * penalty);
    }
  }
}

void apply_output_penalties(std::span<float> logits, const SamplingParams& params,
                            std::span<const TokenId> output) {
  std::vector<int32_t> counts(logits.size(), 0);
  for (const TokenId token : output) {
    if (in_vocab(logits, token)) ++counts[static_cast<size_t>(token)];
  }
  for (const TokenId token : output) {
    if (!in_vocab(logits, token)) continue;
    int32_t& count = counts[static_cast<size_t>(token)];
    if (count == 0) continue;  // done at an earlier occurrence
    float& logit = at(logits, token);
    logit = defined(logit - params.frequency_penalty * static_cast<float>(count) -
                    params.presence_penalty);
    count = 0;
  }
}

// A word of the mask at a time: most say the same of all their tokens.
void forbid_others(std::span<float> logits, const TokenMask& allowed) {
  constexpr size_t kBits = 32;
  for (size_t first = 0; first < logits.size(); first += kBits) {
    const uint32_t word = first / kBits < allowed.size() ? allowed[first / kBits] : 0;
    const size_t count = std::min(kBits, logits.size() - first);
    if (word == UINT32_MAX) continue;
    for (size_t i = 0; i < count; ++i) {
      if ((word >> i & 1U) == 0) logits[first + i] = kImpossible;
    }
  }
}

void adjust_logits(std::span<float> logits, const SamplingParams& params,
                   const SamplingHistory& history) {
  for (const auto& [token, bias] : params.logit_bias) {
    if (in_vocab(logits, token)) at(logits, token) = defined(at(logits, token) + bias);
  }
  for (const TokenId token : params.forbidden_tokens) {
    if (in_vocab(logits, token)) at(logits, token) = kImpossible;
  }
  if (params.repetition_penalty != 1.0F) {
    apply_repetition(logits, params.repetition_penalty, history);
  }
  if (params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F) {
    apply_output_penalties(logits, params, history.output);
  }
}

TokenId argmax(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  return static_cast<TokenId>(best - logits.begin());
}

// Of all tokens that min_p keeps.
std::vector<Candidate> make_candidates(std::span<const float> logits, float max_logit,
                                       const SamplingParams& params) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double distance = static_cast<double>(logits[i]) - static_cast<double>(max_logit);
    const double weight = std::exp(distance / static_cast<double>(params.temperature));
    if (weight == 0.0 || weight < static_cast<double>(params.min_p)) continue;
    candidates.push_back({static_cast<TokenId>(i), logits[i], weight});
  }
  return candidates;
}

void keep_top_k(std::vector<Candidate>& candidates, int32_t top_k) {
  const auto k = static_cast<size_t>(top_k);
  if (top_k <= 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + top_k, candidates.end(),
                   better_candidate);
  candidates.resize(k);
}

// Sorts only as far as needed: the set is small in most vocabularies of 100,000 tokens.
void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  if (top_p >= 1.0F) return;
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  const double wanted = static_cast<double>(top_p) * total;
  double covered = 0.0;
  size_t num_sorted = 0;
  for (size_t count = 0; count < candidates.size(); ++count) {
    if (count == num_sorted) {
      num_sorted = std::min(candidates.size(), std::max<size_t>(64, 4 * num_sorted));
      std::partial_sort(candidates.begin() + static_cast<std::ptrdiff_t>(count),
                        candidates.begin() + static_cast<std::ptrdiff_t>(num_sorted),
                        candidates.end(), better_candidate);
    }
    covered += candidates[count].weight;
    if (covered >= wanted) {
      candidates.resize(count + 1);
      return;
    }
  }
}

TokenId draw(std::span<const Candidate> candidates, uint64_t random_bits) {
  double best_time = std::numeric_limits<double>::infinity();
  TokenId best = candidates.front().token;
  for (const Candidate& candidate : candidates) {
    const double v = to_unit_interval(mix_bits(
        random_bits + (static_cast<uint64_t>(candidate.token) + 1) * 0x9e3779b97f4a7c15ULL));
    // -log(1 - v) >= v, so that most tokens need no logarithm.
    if (v > best_time * candidate.weight) continue;
    const double time = -std::log1p(-v) / candidate.weight;
    if (time < best_time || (time == best_time && candidate.token < best)) {
      best_time = time;
      best = candidate.token;
    }
  }
  return best;
}

TokenId lowest_allowed(std::span<const float> logits, const SamplingParams& params) {
  std::vector<TokenId> forbidden = params.forbidden_tokens;
  std::sort(forbidden.begin(), forbidden.end());
  const TokenMask* mask = params.allowed_tokens.get();
  std::optional<TokenId> first;  // that the mask allows
  for (TokenId token = 0; in_vocab(logits, token); ++token) {
    if (mask != nullptr && !mask_allows(*mask, token)) continue;
    if (!std::binary_search(forbidden.begin(), forbidden.end(), token)) return token;
    if (!first) first = token;
  }
  return first.value_or(0);
}

TokenId choose(std::span<const float> logits, const SamplingParams& params, uint64_t random_bits) {
  const TokenId best = argmax(logits);
  const float max_logit = logits[static_cast<size_t>(best)];
  if (max_logit == kImpossible) return lowest_allowed(logits, params);
  if (params.temperature < kGreedyTemperature || params.top_k == 1) return best;
  std::vector<Candidate> candidates = make_candidates(logits, max_logit, params);
  keep_top_k(candidates, params.top_k);
  keep_top_p(candidates, params.top_p);
  return draw(candidates, random_bits);
}

double log_sum_exp(std::span<const float> logits) {
  const float max_logit = *std::max_element(logits.begin(), logits.end());
  if (max_logit == kImpossible) return 0.0;
  double sum = 0.0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - static_cast<double>(max_logit));
  }
  return static_cast<double>(max_logit) + std::log(sum);
}

std::vector<std::pair<TokenId, float>> top_logprobs(std::span<const float> logits, int32_t count,
                                                    double log_total) {
  const auto num_wanted = std::min(static_cast<size_t>(count), logits.size());
  std::vector<TokenId>
      order;  // the best so far; few are wanted, so that most logits change nothing
  const auto comes_first = [&](TokenId a, TokenId b) {
    return better(logits[static_cast<size_t>(a)], a, logits[static_cast<size_t>(b)], b);
  };
  for (TokenId token = 0; num_wanted > 0 && in_vocab(logits, token); ++token) {
    if (order.size() == num_wanted) {
      if (!comes_first(token, order.back())) continue;
      order.pop_back();
    }
    order.insert(std::lower_bound(order.begin(), order.end(), token, comes_first), token);
  }
  std::vector<std::pair<TokenId, float>> best;
  for (size_t i = 0; i < num_wanted; ++i) {
    const double logit = logits[static_cast<size_t>(order[i])];
    if (logit == static_cast<double>(kImpossible)) break;
    best.emplace_back(order[i], static_cast<float>(logit - log_total));
  }
  return best;
}

}  // namespace

SampledChoice sample(std::span<float> logits, const SamplingParams& params,
                     const SamplingHistory& history, uint64_t random_bits) {
  NANOCP_CHECK(!logits.empty());
  for (float& logit : logits) logit = defined(logit);
  if (params.allowed_tokens != nullptr) forbid_others(logits, *params.allowed_tokens);
  SampledChoice choice;
  if (params.num_logprobs < 0) {
    adjust_logits(logits, params, history);
    choice.token = choose(logits, params, random_bits);
    return choice;
  }
  const std::vector<float> raw(logits.begin(), logits.end());
  adjust_logits(logits, params, history);
  choice.token = choose(logits, params, random_bits);
  const double log_total = log_sum_exp(raw);
  const double logit = raw[static_cast<size_t>(choice.token)];
  choice.logprob = static_cast<float>(logit - log_total);
  choice.top_logprobs = top_logprobs(raw, params.num_logprobs, log_total);
  return choice;
}

TokenScore score(std::span<float> logits, TokenId token, int32_t num_top) {
  NANOCP_CHECK(in_vocab(logits, token));
  for (float& logit : logits) logit = defined(logit);
  const double log_total = log_sum_exp(logits);
  return {.logprob = static_cast<float>(at(logits, token) - log_total),
          .top_logprobs = top_logprobs(logits, num_top, log_total)};
}

}  // namespace nanocp::ops
