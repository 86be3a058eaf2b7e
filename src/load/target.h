// Where requests of a load go, and what is the same in all of them. Immutable once made; any
// thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "http_client/client.h"
#include "load/prompt.h"

namespace nanocp::load {

struct TargetOptions {
  Api api = Api::kCompletions;
  std::string base_path = {};  // "/v1"
  std::string model = {};
  std::string api_key = {};     // empty: none
  std::string extra_body = {};  // a JSON object whose members go before ours; empty: none
  bool ignores_eos = true;
};

class Target {
 public:
  // Fails where the extra body is no JSON object.
  static Result<Target> make(const TargetOptions& options);

  // A streamed request. `prompt` is as PromptSource makes it.
  http_client::Request request(const std::string& prompt, int64_t num_output_tokens) const;
  // One that is answered at once, with one token.
  http_client::Request probe(const std::string& prompt) const;
  http_client::Request get(const std::string& name) const;  // "models" for /v1/models

 private:
  http_client::Request post(const std::string& shared, const std::string& prompt,
                            int64_t num_output_tokens) const;

  TargetOptions options_;
  std::string shared_;        // members of every body, without the closing brace
  std::string probe_shared_;  // the same of a probe
  bool has_length_ = false;   // the extra body says how long answers are
};

}  // namespace nanocp::load
