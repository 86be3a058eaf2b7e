// Loads fixtures and runs requests through the production engine on CPU instances.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "scheduler/policy.h"
#include "tensor/kv_format.h"

namespace nanocp::e2e {

struct GoldenCase {
  std::vector<TokenId> prompt;
  std::vector<float> last_logits;
  std::vector<TokenId> greedy;
  std::vector<float> top2_margin;
  std::vector<float> logits_after;
};

struct TestModel {
  std::string name;
  std::shared_ptr<const model::ModelSpec> spec;
  std::shared_ptr<const model::ModelWeights> weights;
  std::vector<GoldenCase> cases;
};

// The nine fixtures that the project carries.
std::vector<std::string> fixture_names();
std::string fixture_dir(const std::string& name);
// `config_name`: config.json or config.legacy.json. Fails the test when it cannot be loaded.
TestModel load_test_model(const std::string& dir, const std::string& config_name);

struct RunOptions {
  int num_instances = 1;
  int block_size = 16;
  int64_t num_blocks = 1024;  // per instance
  int max_batched_tokens = 512;
  int prefill_chunk_tokens = 0;
  bool reserves_growth = true;
  bool async_scheduling = true;                         // if the runner can
  tensor::KvFormat kv_format = tensor::KvFormat::kF32;  // of run_requests
};

// What a request produced: the logits before each sampled token, and the tokens.
struct RunOutput {
  std::vector<TokenId> tokens;
  std::vector<std::vector<float>> logits;
  std::vector<TokenScore> prompt_scores;  // if asked for
  std::optional<engine::SequenceSummary> summary;
};

// Runs all requests together; outputs in their order.
Result<std::vector<RunOutput>> run_requests(const TestModel& model, const RunOptions& options,
                                            std::unique_ptr<scheduler::Policy> policy,
                                            const std::vector<request::Request>& requests);

// The same on a runner that exists already, with the instances and blocks that the options say.
Result<std::vector<RunOutput>> run_requests_on(engine::ModelRunner& runner, const TestModel& model,
                                               const RunOptions& options,
                                               std::unique_ptr<scheduler::Policy> policy,
                                               const std::vector<request::Request>& requests);

// Greedy, to the full length.
request::Request greedy_request(std::vector<TokenId> prompt, int max_tokens);

// max |a - b| / max |b|.
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace nanocp::e2e
