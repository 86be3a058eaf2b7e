#include "e2e/test_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "model/config_parser.h"
#include "model/weight_loader.h"
#include "runner/cpu_runner.h"

namespace nanocp::e2e {
namespace {

std::vector<GoldenCase> read_golden(const std::string& file) {
  std::ifstream in(file);
  const auto document = nlohmann::json::parse(in);
  std::vector<GoldenCase> cases;
  for (const auto& entry : document.at("cases")) {
    cases.push_back({.prompt = entry.at("prompt").get<std::vector<TokenId>>(),
                     .last_logits = entry.at("last_logits").get<std::vector<float>>(),
                     .greedy = entry.at("greedy").get<std::vector<TokenId>>(),
                     .top2_margin = entry.at("top2_margin").get<std::vector<float>>(),
                     .logits_after = entry.at("logits_after").get<std::vector<float>>()});
  }
  return cases;
}

engine::EngineOptions make_engine_options(const TestModel& model, const RunOptions& options) {
  engine::EngineOptions result;
  result.scheduler.num_blocks.assign(static_cast<size_t>(options.num_instances),
                                     options.num_blocks);
  result.scheduler.block_size = options.block_size;
  result.scheduler.max_batched_tokens = options.max_batched_tokens;
  result.scheduler.prefill_chunk_tokens = options.prefill_chunk_tokens;
  result.scheduler.reserves_growth = options.reserves_growth;
  result.eos_token_ids = model.spec->eos_token_ids;
  result.vocab_size = model.spec->vocab_size;
  result.async_scheduling = options.async_scheduling;
  return result;
}

}  // namespace

std::vector<std::string> fixture_names() {
  return {"qwen3_moe", "mixtral",       "deepseek_v2",     "deepseek_v3",  "gpt_oss",
          "glm4_moe",  "qwen3_moe_fp8", "deepseek_v3_fp8", "gpt_oss_mxfp4"};
}

std::string fixture_dir(const std::string& name) {
  return std::string(NANOCP_SOURCE_DIR) + "/tests/fixtures/" + name;
}

TestModel load_test_model(const std::string& dir, const std::string& config_name) {
  auto spec = model::read_config(dir + "/" + config_name);
  EXPECT_TRUE(spec.ok()) << spec.error().message;
  auto weights = model::load_weights(*spec, dir, model::LoadOptions());
  EXPECT_TRUE(weights.ok()) << weights.error().message;
  return {.name = std::filesystem::path(dir).filename(),
          .spec = std::make_shared<const model::ModelSpec>(std::move(spec).value()),
          .weights = std::move(weights).value(),
          .cases = read_golden(dir + "/golden.json")};
}

Result<std::vector<RunOutput>> run_requests(const TestModel& model, const RunOptions& options,
                                            std::unique_ptr<scheduler::Policy> policy,
                                            const std::vector<request::Request>& requests) {
  const runner::CpuRunnerOptions runner_options = {.num_instances = options.num_instances,
                                                   .block_size = options.block_size,
                                                   .num_blocks = options.num_blocks,
                                                   .kv_format = options.kv_format,
                                                   .max_rows = options.max_batched_tokens,
                                                   .keep_logits = true};
  NANOCP_ASSIGN_OR_RETURN(auto runner,
                          runner::CpuRunner::create(model.spec, model.weights, runner_options));
  return run_requests_on(*runner, model, options, std::move(policy), requests);
}

Result<std::vector<RunOutput>> run_requests_on(engine::ModelRunner& runner, const TestModel& model,
                                               const RunOptions& options,
                                               std::unique_ptr<scheduler::Policy> policy,
                                               const std::vector<request::Request>& requests) {
  const SteadyClock clock;
  engine::Engine engine(make_engine_options(model, options), std::move(policy), runner, clock,
                        Random(1));
  std::vector<RunOutput> outputs(requests.size());
  std::map<SequenceId, size_t> index_of;
  for (size_t i = 0; i < requests.size(); ++i) {
    NANOCP_ASSIGN_OR_RETURN(const SequenceId id, engine.add_request(requests[i]));
    index_of[id] = i;
  }
  while (engine.has_work()) {
    NANOCP_ASSIGN_OR_RETURN(std::vector<engine::TokenEvent> events, engine.step());
    for (engine::TokenEvent& event : events) {
      RunOutput& output = outputs[index_of.at(event.sequence)];
      output.tokens.push_back(event.token);
      engine::TokenDetails details = event.details.take();
      output.logits.push_back(std::move(details.logits));
      if (output.logits.size() == 1) output.prompt_scores = std::move(details.prompt_scores);
      if (event.summary) output.summary = std::move(*event.summary);
    }
  }
  return outputs;
}

request::Request greedy_request(std::vector<TokenId> prompt, int max_tokens) {
  request::Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0.0;
  double difference = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(error)) return INFINITY;
    difference = std::max(difference, error);
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

}  // namespace nanocp::e2e
