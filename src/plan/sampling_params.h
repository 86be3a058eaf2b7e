// How the next token of one sequence is chosen. Plain numbers, immutable after admission but
// for what the engine sets; read by the sampler on the device side and by the engine on the host
// side.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "plan/ids.h"
#include "plan/token_mask.h"

namespace nanocp {

struct SamplingParams {
  float temperature = 0.0F;         // 0 means greedy
  int32_t top_k = 0;                // 0 means all tokens
  float top_p = 1.0F;               // (0, 1]; 1 means all tokens
  float min_p = 0.0F;               // [0, 1); keeps tokens with p >= min_p x max p
  float repetition_penalty = 1.0F;  // > 0; 1 means none; over prompt and output (CTRL, 2019)
  float presence_penalty = 0.0F;    // subtracted once per token seen in the output
  float frequency_penalty = 0.0F;   // subtracted per occurrence in the output
  uint64_t seed = 0;                // random bits are counter_random(seed, output position)
  int32_t num_logprobs = -1;        // -1 none; k >= 0: the chosen token's and the k best
  std::vector<std::pair<TokenId, float>> logit_bias = {};  // added to the logits
  std::vector<TokenId> forbidden_tokens =
      {};  // set by the engine, e.g. stop tokens before min_tokens
  // Set by the engine for a sequence with a constraint: all others are impossible. Null: all may be
  // sampled.
  std::shared_ptr<const TokenMask> allowed_tokens = nullptr;
};

}  // namespace nanocp
