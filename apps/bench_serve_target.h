// The server of `nanocp bench serve`, asked what it has and takes before it is loaded. Blocks; any
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "apps/bench_serve_options.h"
#include "base/result.h"
#include "http_client/client.h"
#include "load/prompt.h"
#include "load/target.h"

namespace nanocp::apps {

struct ServeSubject {
  http_client::Options client;
  load::Target target;
  std::string model;
  // Prompts of a seed; those of a file are the same for each.
  std::function<std::shared_ptr<const load::PromptSource>(uint64_t seed)> prompts;
  std::string prompts_text;  // in words
};

// Fails, saying what the server said, where a request of the planned kind is not answered.
Result<ServeSubject> find_subject(const BenchServeOptions& options);

}  // namespace nanocp::apps
