#include "apps/generation_report.h"

#include <algorithm>
#include <cstdio>

namespace nanocp::apps {
namespace {

using nlohmann::json;

std::string count_of(int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string format_number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

json logprobs_json(const std::vector<TokenLogprobs>& logprobs) {
  json list = json::array();
  for (const TokenLogprobs& entry : logprobs) {
    json top = json::array();
    for (const auto& [token, logprob] : entry.top) {
      top.push_back({{"token", token}, {"logprob", logprob}});
    }
    list.push_back({{"token", entry.token}, {"logprob", entry.logprob}, {"top", std::move(top)}});
  }
  return list;
}

json answer_json(size_t index, const GenerationTask& task, const Answer& answer) {
  json entry = {{"index", index},
                {"source", task.source},
                {"num_prompt_tokens", task.prompt.size()},
                {"text", answer.text},
                {"token_ids", answer.token_ids},
                {"finish_reason", to_string(answer.finish_reason)}};
  if (!answer.placement.error.empty()) entry["error"] = answer.placement.error;
  entry.update(placement_json(answer.placement));
  if (task.params.sampling.num_logprobs >= 0) entry["logprobs"] = logprobs_json(answer.logprobs);
  return entry;
}

}  // namespace

int degree(const engine::SequenceSummary& placement) {
  return static_cast<int>(std::count_if(placement.kv_tokens.begin(), placement.kv_tokens.end(),
                                        [](const auto& shard) { return shard.second > 0; }));
}

std::string describe_placement(const engine::SequenceSummary& placement) {
  if (placement.binding == kNoInstance) return "never ran";
  std::string shards;
  for (const auto& [instance, num_tokens] : placement.kv_tokens) {
    if (!shards.empty()) shards += ", ";
    shards += "instance " + std::to_string(instance) + ": " + count_of(num_tokens, "token");
  }
  std::string text = "bound to instance " + std::to_string(placement.binding) + ", degree " +
                     std::to_string(degree(placement)) + " (" + shards + ")";
  if (placement.num_preemptions > 0) {
    text += ", preempted " + count_of(placement.num_preemptions, "time");
  }
  return text;
}

std::string describe_answer(const GenerationTask& task, const Answer& answer) {
  return count_of(static_cast<int64_t>(task.prompt.size()), "prompt token") + ", " +
         count_of(static_cast<int64_t>(answer.token_ids.size()), "output token") + ", ended by " +
         to_string(answer.finish_reason) +
         (answer.placement.error.empty() ? "" : " (" + answer.placement.error + ")") + "; " +
         describe_placement(answer.placement);
}

std::string describe_summary(const GenerationSummary& summary, size_t num_requests) {
  return count_of(static_cast<int64_t>(num_requests), "request") + " on " +
         count_of(summary.num_instances, "instance") + ", policy " + summary.policy + ": " +
         count_of(summary.num_prompt_tokens, "prompt token") + " and " +
         count_of(summary.num_output_tokens, "output token") + " in " +
         format_number("%.2f s", summary.duration_s) + ", " +
         format_number("%.1f tokens/s", summary.tokens_per_s());
}

json placement_json(const engine::SequenceSummary& placement) {
  json shards = json::array();
  for (const auto& [instance, num_tokens] : placement.kv_tokens) {
    shards.push_back({{"instance", instance}, {"num_tokens", num_tokens}});
  }
  return {{"binding", placement.binding},
          {"degree", degree(placement)},
          {"shards", std::move(shards)},
          {"num_preemptions", placement.num_preemptions}};
}

json report_json(const std::vector<GenerationTask>& tasks, const std::vector<Answer>& answers,
                 const GenerationSummary& summary) {
  json requests = json::array();
  for (size_t i = 0; i < answers.size(); ++i) {
    requests.push_back(answer_json(i, tasks[i], answers[i]));
  }
  return {{"requests", std::move(requests)},
          {"summary",
           {{"num_instances", summary.num_instances},
            {"policy", summary.policy},
            {"num_prompt_tokens", summary.num_prompt_tokens},
            {"num_output_tokens", summary.num_output_tokens},
            {"num_steps", summary.num_steps},
            {"duration_s", summary.duration_s},
            {"tokens_per_s", summary.tokens_per_s()}}}};
}

std::string terminal_safe(const std::string& text) {
  std::string safe;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    // U+0080 to U+009F, the second set of control characters.
    const bool is_c1 =
        byte == 0xc2 && i + 1 < text.size() && static_cast<uint8_t>(text[i + 1]) < 0xa0;
    if (is_c1) ++i;
    const bool is_c0 = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    if (is_c0 || is_c1) {
      safe += "\ufffd";
    } else {
      safe += text[i];
    }
  }
  return safe;
}

}  // namespace nanocp::apps
