// One request and its whole answer, for questions before a run. Blocks; any thread.
#pragma once

#include <string>

#include "base/result.h"
#include "http_client/client.h"

namespace nanocp::http_client {

struct Answer {
  int status = 0;
  std::string body;
};

// Fails, naming the server and the target, where no whole answer of at most `bytes_max` comes.
Result<Answer> fetch(const Options& options, Request request, size_t bytes_max);

}  // namespace nanocp::http_client
