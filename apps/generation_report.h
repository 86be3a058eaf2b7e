// How answers are shown: as text for people, or as one JSON document.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/generation.h"

namespace nanocp::apps {

struct GenerationSummary {
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  uint64_t num_steps = 0;
  double duration_s = 0.0;
  int num_instances = 1;
  std::string policy;

  double tokens_per_s() const {
    return duration_s > 0 ? static_cast<double>(num_output_tokens) / duration_s : 0.0;
  }
};

// Instances that hold at least one token.
int degree(const engine::SequenceSummary& placement);

// "bound to instance 2, degree 2 (instance 0: 64 tokens, instance 2: 23 tokens)"
std::string describe_placement(const engine::SequenceSummary& placement);

// One line: tokens, how it ended, placement.
std::string describe_answer(const GenerationTask& task, const Answer& answer);

std::string describe_summary(const GenerationSummary& summary, size_t num_requests);

nlohmann::json placement_json(const engine::SequenceSummary& placement);

nlohmann::json report_json(const std::vector<GenerationTask>& tasks,
                           const std::vector<Answer>& answers, const GenerationSummary& summary);

// `text` as a terminal may see it: control characters other than new line and tab, which could move
// the cursor or change its settings, become U+FFFD.
std::string terminal_safe(const std::string& text);

}  // namespace nanocp::apps
