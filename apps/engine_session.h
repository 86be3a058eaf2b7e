// A model that is ready to answer: spec, weights, runner and engine, built from the command line.
// Owned by one command; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/engine_options.h"
#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "runner/cpu_runner.h"

namespace nanocp::apps {

// What the command is going to ask of the engine.
struct SessionNeeds {
  std::vector<int64_t> request_tokens;  // prompt and output of each request
  bool keep_logits = false;
};

class EngineSession {
 public:
  static Result<std::unique_ptr<EngineSession>> open(const EngineOptions& options,
                                                     std::shared_ptr<const model::ModelSpec> spec,
                                                     const SessionNeeds& needs);

  engine::Engine& engine() { return *engine_; }

 private:
  EngineSession() = default;

  SteadyClock clock_;
  std::unique_ptr<runner::CpuRunner> runner_;
  std::unique_ptr<engine::Engine> engine_;
};

// The spec of the model that the options name.
Result<std::shared_ptr<const model::ModelSpec>> read_spec(const EngineOptions& options);

// Prompt and output together, as the options and the model allow.
Result<int64_t> max_model_len(const EngineOptions& options, const model::ModelSpec& spec);

}  // namespace nanocp::apps
