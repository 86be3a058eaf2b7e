// Reference results of a model, computed by an independent implementation. golden.json holds
// {"cases": [{"prompt": [ids], "last_logits": [vocab], "greedy": [ids], "top2_margin": [greedy],
// "logits_after": [vocab]}, ...]}.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/result.h"
#include "plan/ids.h"

namespace nanocp::apps {

struct GoldenCase {
  std::vector<TokenId> prompt;
  std::vector<float> last_logits;   // after the prompt
  std::vector<TokenId> greedy;      // greedy continuation
  std::vector<float> top2_margin;   // of the two largest logits before each greedy token
  std::vector<float> logits_after;  // after the last greedy token
};

// Errors name file, case and field.
Result<std::vector<GoldenCase>> read_golden(const std::filesystem::path& path, int32_t vocab_size);

}  // namespace nanocp::apps
