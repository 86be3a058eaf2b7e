// Fills a KV cache with numbers, for benchmarks without weights.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "base/result.h"

namespace nanocp::cuda {

// Blocks, one behind the other, as CacheType::kE4m3 lays them out.
struct FillCodesArgs {
  void* data = nullptr;  // device memory
  int64_t size_bytes = 0;
  int64_t num_codes = 0;      // of a block
  int64_t num_exponents = 0;  // behind them
  uint64_t seed = 0;
};

// Values within [-1, 1], a pure function of seed and place.
Status launch_fill_codes(const FillCodesArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
