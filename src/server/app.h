// The routes of `nanocp serve` and the states they depend on: a server that loads its model, serves
// it, drains. Owned by the command; outlives the HTTP server, whose handler it is.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "api/model_context.h"
#include "http/message.h"
#include "http/response.h"
#include "server/engine_loop.h"
#include "server/router.h"

namespace nanocp::server {

struct AppOptions {
  RouterOptions router;
  std::string version;
};

// What there is once the model is loaded.
struct ServedModel {
  std::shared_ptr<const api::ModelContext> context;
  EngineLoop* loop = nullptr;  // outlives the HTTP server
};

class App {
 public:
  explicit App(AppOptions options);
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  // For routes of others, before the first request.
  Router& router() { return router_; }
  const Router& router() const { return router_; }

  // The HTTP server's handler; any thread.
  void handle(const http::Request& request, const std::shared_ptr<http::Response>& response) const {
    router_.handle(request, response);
  }
  // The model is loaded; once.
  void serve(ServedModel model);
  // Null while loading. Any thread.
  std::shared_ptr<const ServedModel> model() const;
  // The same, but where it is null the response has been answered. Any thread.
  std::shared_ptr<const ServedModel> loaded_model(
      const std::shared_ptr<http::Response>& response) const;
  // From now on /ready says no and requests for text are refused.
  void begin_drain();

 private:
  using Response = std::shared_ptr<http::Response>;

  void add_state_routes();
  void add_model_routes();
  void add_generation_routes();
  void answer_health(const Response& response) const;
  void answer_ready(const Response& response) const;
  void answer_load(const Response& response) const;
  void warn_once(const std::vector<std::string>& warnings);

  const AppOptions options_;
  Router router_;
  std::atomic<bool> draining_{false};
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::shared_ptr<const ServedModel> model_;
  std::set<std::string> warned_;
};

}  // namespace nanocp::server
