// The page at /: one HTML file that needs nothing else but GET /cluster and the API. Pure function,
// any thread.
#pragma once

#include <string>

namespace nanocp::server {

std::string live_page();

}  // namespace nanocp::server
