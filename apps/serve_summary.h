// What `nanocp serve` prints when it is ready: one readable block with what was started and where.
#pragma once

#include <string>

#include "api/model_context.h"
#include "apps/engine_session.h"
#include "apps/serve_options.h"
#include "http/server.h"
#include "model/model_spec.h"

namespace nanocp::apps {

struct ServeSummary {
  const model::ModelSpec& spec;
  EngineSession& session;
  const api::ModelContext& context;
  const ServeOptions& options;
  const http::Server& http_server;
  bool has_api_keys = false;
};

void print_summary(const ServeSummary& summary);

// "http://127.0.0.1:8000"
std::string server_url(const http::Server& http_server);

}  // namespace nanocp::apps
