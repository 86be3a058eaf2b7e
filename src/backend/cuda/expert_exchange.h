// Rows to the instances that own their experts and back: the router's choice with the push of rows
// and choices (dispatch), and the weighted sums that return (combine), with the residual sum and
// the norm that follow. Every instance takes part in every epoch, also without rows. All pointers
// are device memory of the current device, aligned to 16 bytes; peers' heaps are reached through
// ExchangeView. Nothing synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_step.h"
#include "backend/cuda/exchange_view.h"
#include "base/result.h"
#include "ops/topk_gate.h"

namespace nanocp::cuda {

// Expert e is owned by instance e * num_instances / num_experts (rounded down).
struct GateDispatchArgs {
  DeviceStep step;
  ExchangeView exchange;
  ExchangeEpoch epoch;
  int32_t rows = 0;  // bucket
  ops::RouterSpec router;
  int32_t num_experts = 0;                 // of the layer, up to 512
  const float* logits = nullptr;           // [rows, num_experts]
  const float* router_bias = nullptr;      // [num_experts], added to the logits, or null
  const float* correction_bias = nullptr;  // [num_experts] or null
  uint32_t* counter = nullptr;  // one word, zero before the first launch; zero again after each
};
// Writes the number of own rows and the choice for each to all instances, and each row of the own
// dispatch region to every other instance that owns one of its experts (few rows: to all), in the
// slot of its row number. Then raises kDispatch at all of them: the rows are there.
Status launch_gate_dispatch(const GateDispatchArgs& args, cudaStream_t stream);

struct CombineArgs {
  DeviceStep step;
  ExchangeView exchange;
  ExchangeEpoch epoch;
  int32_t num_experts = 0;                 // of the layer
  const void* y = nullptr;                 // bf16 [assignments, hidden]: the experts' results
  const int32_t* assignment_of = nullptr;  // as ExpertLists
  const void* shared = nullptr;            // bf16 [rows, hidden], added; or null
  const float* norm_weight = nullptr;      // [hidden]
  float eps = 0.0F;
  float* residual = nullptr;  // [rows, hidden], up to 8192 values a row
  void* x = nullptr;          // bf16 [rows, hidden]
  ExchangePart part = ExchangePart::kBoth;
};
// Returns one weighted sum for each received row that has experts here; then, for own rows, as
// their sums arrive: residual += sums of all instances + shared,
// x = rms_norm(residual) * norm_weight.
Status launch_combine(const CombineArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
