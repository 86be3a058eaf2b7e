#include "server/observability_routes.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "server/live_page.h"
#include "server/reply.h"

namespace nanocp::server {
namespace {

using ResponsePtr = std::shared_ptr<http::Response>;

// The page may be in no other one's frame; the rest of its policy is in the page itself.
http::Headers page_headers() {
  return {{"Content-Type", "text/html; charset=utf-8"},
          {"Cache-Control", "no-cache"},
          {"X-Content-Type-Options", "nosniff"},
          {"Content-Security-Policy", "frame-ancestors 'none'"}};
}

// A GET route that asks the engine loop of the loaded model; 503 while there is none.
template <typename Answer>
void add_get(App& app, const char* path, Answer answer) {
  app.router().add(
      {.method = "GET",
       .path = path,
       .handler = [&app, answer](const http::Request& request, const ResponsePtr& response) {
         if (const auto served = app.loaded_model(response)) {
           answer(request, *served->loop, *response);
         }
       }});
}

}  // namespace

void add_observability_routes(App& app, const Observability& observability) {
  app.router().add({.method = "GET",
                    .path = "/",
                    .handler =
                        [page = live_page()](const http::Request&, const ResponsePtr& response) {
                          response->send(200, page_headers(), page);
                        },
                    .is_open = true});
  add_get(app, "/metrics",
          [&observability](const http::Request&, const EngineLoop& loop, http::Response& response) {
            response.send(200, {{"Content-Type", Metrics::kContentType}},
                          observability.metrics_text(*loop.snapshot()));
          });
  add_get(app, "/cluster",
          [&observability](const http::Request& request, const EngineLoop& loop,
                           http::Response& response) {
            reply_json(
                response, 200,
                observability.cluster(*loop.snapshot(), loop.health().is_alive(), request.query));
          });
  add_get(app, "/debug/trace",
          [&observability](const http::Request&, const EngineLoop&, http::Response& response) {
            reply_json(response, 200, observability.chrome_trace());
          });
}

}  // namespace nanocp::server
