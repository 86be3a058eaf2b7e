// What follows attention in the shard exchange: partial results of received rows go back to the
// rows' instances, and the own rows' parts are merged. All pointers are device memory of the
// current device, aligned to 16 bytes; peers' heaps are reached through ExchangeView. Nothing
// synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_step.h"
#include "backend/cuda/exchange_view.h"
#include "base/result.h"

namespace nanocp::cuda {

struct FinishAttentionArgs {
  DeviceStep step;
  ExchangeView exchange;
  ExchangeEpoch epoch;
  int32_t rows = 0;  // bucket
  // Of own and received rows, indexed as the query region: natural logarithm, -infinity where a row
  // saw nothing here.
  const float* out = nullptr;    // [(1 + num_instances) * max_rows, partial_values]
  const float* lse = nullptr;    // [(1 + num_instances) * max_rows, num_heads]
  const float* sinks = nullptr;  // [num_heads], a logit that joins each softmax (gpt-oss); or null
  void* merged = nullptr;        // bf16 [rows, partial_values]
  uint32_t* counter = nullptr;   // one word, zero before the first launch; zero again after each
  ExchangePart part = ExchangePart::kBoth;
};
// Returns the partials of received rows and raises kPartial at their sources; waits for those of
// the own rows, merges them by LSE and applies the sinks. A row that saw nothing anywhere gets 0.
Status launch_finish_attention(const FinishAttentionArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
