// How likely the model found a token of a prompt. Plain data.
#pragma once

#include <utility>
#include <vector>

#include "plan/ids.h"

namespace nanocp {

struct TokenScore {
  float logprob = 0.0F;                                      // natural log
  std::vector<std::pair<TokenId, float>> top_logprobs = {};  // best first, ties by id
};

}  // namespace nanocp
