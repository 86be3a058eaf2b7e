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
#include "engine/model_runner.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "runner/device_runner.h"

namespace nanocp::apps {

// What the command is going to ask of the engine.
struct SessionNeeds {
  std::vector<int64_t> request_tokens;  // prompt and output of each request
  bool keep_logits = false;
  bool profile = false;     // time the phases of every step
  bool time_steps = false;  // and what lies between steps
  bool any_length = false;  // requests may be longer than the model's positions (benchmarks)
};

class EngineSession {
 public:
  static Result<std::unique_ptr<EngineSession>> open(const EngineOptions& options,
                                                     std::shared_ptr<const model::ModelSpec> spec,
                                                     const SessionNeeds& needs);

  engine::Engine& engine() { return *engine_; }
  const Clock& clock() const { return clock_; }  // of the engine
  // A new engine with the policy and limits of `options` on the same runner; ends open requests.
  Status restart(const EngineOptions& options, const model::ModelSpec& spec);
  const std::string& device_name() const { return device_name_; }
  int64_t num_kv_blocks() const { return num_kv_blocks_; }  // per instance
  // Prompt and output together, of a request that has the instances to itself.
  int64_t longest_request_tokens() const;

 private:
  EngineSession() = default;
  Status make_runner(const EngineOptions& options, std::shared_ptr<const model::ModelSpec> spec,
                     const SessionNeeds& needs);
  Status make_cpu_runner(const EngineOptions& options, std::shared_ptr<const model::ModelSpec> spec,
                         const SessionNeeds& needs);
  Status make_device_runner(const EngineOptions& options,
                            std::shared_ptr<const model::ModelSpec> spec,
                            const SessionNeeds& needs);

  SteadyClock clock_;
  std::string device_name_;
  int64_t num_kv_blocks_ = 0;
  int64_t model_len_ = 0;
  bool any_length_ = false;
  std::unique_ptr<engine::ModelRunner> runner_;
  runner::DeviceRunner* device_runner_ = nullptr;  // runner_, where it is one
  std::unique_ptr<engine::Engine> engine_;
};

// The spec of the model that the options name.
Result<std::shared_ptr<const model::ModelSpec>> read_spec(const EngineOptions& options);

// Prompt and output together, as the options and the model allow.
Result<int64_t> max_model_len(const EngineOptions& options, const model::ModelSpec& spec);

}  // namespace nanocp::apps
