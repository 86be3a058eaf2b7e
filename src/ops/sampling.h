// Chooses the next token of one sequence from its logits. Plain functions of their arguments; any
// thread. The order is that of vLLM: allowed tokens, logit bias, forbidden tokens, penalties,
// temperature, min_p, top_k, top_p, draw.
//
// - Log probabilities are the log-softmax of the raw logits, before any of these but the allowed
//   tokens: all others are impossible (as in vLLM), and not among the best ones that are reported.
// - Greedy (temperature below 1e-5) takes the largest logit; ties go to the lowest id. top_k keeps
//   exactly k tokens, top_p the smallest set of probability >= p, ties again by id.
// - The draw is an exponential race (as in vLLM): token i gets -log(u_i) / p_i with u_i a hash of
//   (random_bits, i), the least wins. Equal to drawing from p, and a rounding error in one logit
//   changes the result only if it decides between the first two.
// - A NaN logit counts as -infinity, +infinity as the largest finite float. If no token has a
//   finite logit, the lowest id that is allowed and not forbidden is chosen, with log probability
//   -infinity.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "plan/ids.h"
#include "plan/sampling_params.h"
#include "plan/token_score.h"

namespace nanocp::ops {

struct SamplingHistory {
  std::span<const TokenId> prompt;
  std::span<const TokenId> output;
};

struct SampledChoice {
  TokenId token = 0;
  float logprob = 0.0F;  // natural log; 0 when no logprobs are asked for
  std::vector<std::pair<TokenId, float>> top_logprobs;  // best first, ties by id
};

// `logits` [vocab_size] is overwritten. `random_bits` = counter_random(params.seed, index of the
// output token). Requires: logits not empty, params within the ranges that
// their fields name.
SampledChoice sample(std::span<float> logits, const SamplingParams& params,
                     const SamplingHistory& history, uint64_t random_bits);

// How likely `token` is, and the `num_top` best ones. `logits` [vocab_size] is overwritten.
// Requires: token in 0 .. vocab_size - 1.
TokenScore score(std::span<float> logits, TokenId token, int32_t num_top);

}  // namespace nanocp::ops
