#include "runner/cuda/exchange_choice.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/cuda_status.h"

namespace nanocp::runner {

Result<ExchangeChoice> choose_exchange(ExchangeTransport wanted, const std::vector<int>& devices) {
  if (wanted != ExchangeTransport::kAuto) return ExchangeChoice{wanted, "as asked for"};
  for (const int from : devices) {
    for (const int to : devices) {
      if (from == to) continue;
      int reaches = 0;
      NANOCP_RETURN_IF_ERROR(cuda::cuda_status(cudaDeviceCanAccessPeer(&reaches, from, to),
                                               "cudaDeviceCanAccessPeer"));
      if (reaches != 0) continue;
      return ExchangeChoice{ExchangeTransport::kNccl, "GPU " + std::to_string(from) +
                                                          " does not reach the memory of GPU " +
                                                          std::to_string(to)};
    }
  }
  return ExchangeChoice{ExchangeTransport::kNvlink, "every GPU reaches the memory of the others"};
}

std::string describe(const ExchangeChoice& choice) {
  const bool is_nccl = choice.transport == ExchangeTransport::kNccl;
  return std::string("exchange: ") +
         (is_nccl ? "NCCL send and receive, without step graphs" : "stores over NVLink") + "; " +
         choice.reason;
}

}  // namespace nanocp::runner
