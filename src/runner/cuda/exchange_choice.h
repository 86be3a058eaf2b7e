// Which transport the instances of this host exchange rows over, and why. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "runner/device_runner.h"

namespace nanocp::runner {

struct ExchangeChoice {
  ExchangeTransport transport = ExchangeTransport::kNvlink;  // never kAuto
  std::string reason;
};

// `devices`: the GPU of each instance. A transport that is asked for is taken as it is.
Result<ExchangeChoice> choose_exchange(ExchangeTransport wanted, const std::vector<int>& devices);

// The line that says so at start-up.
std::string describe(const ExchangeChoice& choice);

}  // namespace nanocp::runner
