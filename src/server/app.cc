#include "server/app.h"

#include <cstdio>
#include <utility>

#include "api/api_error.h"
#include "api/generation_request.h"
#include "api/model_list.h"
#include "api/token_requests.h"
#include "server/completion.h"
#include "server/load_json.h"
#include "server/reply.h"

namespace nanocp::server {
namespace {

constexpr size_t kWarningsMax = 1000;
constexpr std::string_view kModels = "/v1/models/";

api::ApiError unavailable(const std::string& message, const char* code) {
  return {.status = 503, .message = message, .type = "server_error", .code = code};
}

void reply(const std::shared_ptr<http::Response>& response, api::ApiResult<std::string> result) {
  if (const api::ApiError* error = api::error_of(result)) return reply_error(*response, *error);
  reply_json(*response, 200, std::move(std::get<std::string>(result)));
}

}  // namespace

App::App(AppOptions options) : options_(std::move(options)), router_(options_.router) {
  add_state_routes();
  add_model_routes();
  add_generation_routes();
}

void App::serve(ServedModel model) {
  const std::scoped_lock lock(mutex_);
  model_ = std::make_shared<const ServedModel>(std::move(model));
}

std::shared_ptr<const ServedModel> App::model() const {
  const std::scoped_lock lock(mutex_);
  return model_;
}

void App::begin_drain() {
  draining_ = true;
  if (const auto served = model()) served->loop->begin_drain();
}

std::shared_ptr<const ServedModel> App::loaded_model(const Response& response) const {
  auto served = model();
  if (served == nullptr) {
    reply_error(*response, unavailable("the model is being loaded; try again later", "loading"));
  }
  return served;
}

void App::add_state_routes() {
  router_.add({.method = "GET",
               .path = "/health",
               .handler = [this](const http::Request&,
                                 const Response& response) { answer_health(response); },
               .is_open = true});
  router_.add({.method = "GET",
               .path = "/ready",
               .handler = [this](const http::Request&, const Response& response) {
                 answer_ready(response);
               }});
  router_.add({.method = "GET",
               .path = "/version",
               .handler = [this](const http::Request&, const Response& response) {
                 reply_json(*response, 200, "{\"version\":\"" + options_.version + "\"}");
               }});
  router_.add({.method = "GET",
               .path = "/load",
               .handler = [this](const http::Request&, const Response& response) {
                 answer_load(response);
               }});
}

// Liveness: a server that loads or drains lives; one whose engine has stopped stepping does not.
void App::answer_health(const Response& response) const {
  if (const auto served = model()) {
    const EngineHealth health = served->loop->health();
    if (!health.is_alive()) {
      return reply_error(*response, unavailable(health.reason, "engine_failed"));
    }
  }
  reply_json(*response, 200, R"({"status":"ok"})");
}

void App::answer_ready(const Response& response) const {
  const auto served = loaded_model(response);
  if (served == nullptr) return;
  const EngineHealth health = served->loop->health();
  if (!health.is_alive()) {
    return reply_error(*response, unavailable(health.reason, "engine_failed"));
  }
  if (draining_ || health.state != EngineState::kRunning) {
    return reply_error(*response, unavailable("the server is shutting down", "draining"));
  }
  reply_json(*response, 200, R"({"status":"ready"})");
}

void App::answer_load(const Response& response) const {
  const auto served = loaded_model(response);
  if (served == nullptr) return;
  reply_json(
      *response, 200,
      load_json(*served->loop->snapshot(), served->loop->num_open(), served->loop->num_waiting()));
}

void App::add_model_routes() {
  router_.add({.method = "GET",
               .path = "/v1/models",
               .handler = [this](const http::Request&, const Response& response) {
                 if (const auto served = loaded_model(response)) {
                   reply_json(*response, 200, api::list_models(*served->context));
                 }
               }});
  router_.add({.method = "GET",
               .path = std::string(kModels) + "*",
               .handler = [this](const http::Request& request, const Response& response) {
                 if (const auto served = loaded_model(response)) {
                   const auto id = std::string_view(request.path).substr(kModels.size());
                   reply(response, api::describe_model(id, *served->context));
                 }
               }});
  const auto add_text_route = [this](const char* path, auto answer) {
    router_.add({.method = "POST",
                 .path = path,
                 .handler = [this, answer](const http::Request& request, const Response& response) {
                   if (const auto served = loaded_model(response)) {
                     reply(response, answer(request.body, *served->context));
                   }
                 }});
  };
  add_text_route("/tokenize", api::answer_tokenize);
  add_text_route("/detokenize", api::answer_detokenize);
}

void App::add_generation_routes() {
  const auto add = [this](const char* path, auto parse) {
    router_.add({.method = "POST",
                 .path = path,
                 .handler = [this, parse](const http::Request& request, const Response& response) {
                   const auto served = loaded_model(response);
                   if (served == nullptr) return;
                   auto parsed = parse(request.body, *served->context);
                   if (const api::ApiError* error = api::error_of(parsed)) {
                     return reply_error(*response, *error);
                   }
                   auto& generation = std::get<api::GenerationRequest>(parsed);
                   warn_once(generation.warnings);
                   start_completion(std::move(generation),
                                    {.loop = served->loop, .context = served->context}, request.id,
                                    response);
                 }});
  };
  add("/v1/chat/completions", api::parse_chat_completion);
  add("/v1/completions", api::parse_completion);
}

// Each is said once, and not without end: clients choose the words.
void App::warn_once(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    {
      const std::scoped_lock lock(mutex_);
      if (warned_.size() >= kWarningsMax || !warned_.insert(warning).second) continue;
    }
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
}

}  // namespace nanocp::server
