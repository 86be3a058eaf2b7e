// One request for text, from its parsed body to its last byte: gives its sequences to the engine
// and turns their tokens into the answer. Lives as long as the engine or the connection knows of
// it.
#pragma once

#include <memory>
#include <string>

#include "api/generation_request.h"
#include "api/model_context.h"
#include "api/response_writer.h"
#include "http/response.h"
#include "server/engine_loop.h"

namespace nanocp::server {

struct CompletionTarget {
  EngineLoop* loop = nullptr;                        // outlives the connection
  std::shared_ptr<const api::ModelContext> context;  // not null
};

// Answers now, if the engine takes no more, or as tokens come. Any thread.
void start_completion(api::GenerationRequest request, const CompletionTarget& target,
                      const std::string& request_id,
                      const std::shared_ptr<http::Response>& response);

}  // namespace nanocp::server
