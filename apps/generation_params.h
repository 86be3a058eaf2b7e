// How one answer is made: sampling, length and stops. Set by flags, changed by fields of a prompt
// file. Names are those of vLLM. Plain data.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/sampling_params.h"
#include "request/token_constraint.h"

namespace nanocp::apps {

struct GenerationParams {
  SamplingParams sampling;
  int32_t max_tokens = 128;
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  std::shared_ptr<const request::TokenConstraint> constraint = nullptr;  // structured output
};

// Adds the flags to `command`. Requires: `params` outlives the parsing.
void add_generation_options(CLI::App& command, GenerationParams& params);

// Sets the parameter called `name`; false if there is none. The error says what `value` must be.
Result<bool> set_generation_param(const std::string& name, const nlohmann::json& value,
                                  GenerationParams& params);

}  // namespace nanocp::apps
