// Says what is wrong with a request before anything depends on it. Pure functions.
#pragma once

#include "base/result.h"
#include "request/request.h"

namespace nanocp::engine {

struct RequestLimits {
  int64_t max_model_len = 0;  // 0: no limit
  int64_t vocab_size = 0;     // 0: not known
};

Status check_request(const request::Request& request, const RequestLimits& limits);
Status check_sampling(const SamplingParams& sampling);

}  // namespace nanocp::engine
