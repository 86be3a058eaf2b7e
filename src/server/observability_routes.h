// The routes by which a server tells about itself: the live page, /metrics, /cluster, /debug/trace.
#pragma once

#include "server/app.h"
#include "server/observability.h"

namespace nanocp::server {

// Before the first request. `observability` outlives the app. Only the page needs no key: it holds
// no data.
void add_observability_routes(App& app, const Observability& observability);

}  // namespace nanocp::server
