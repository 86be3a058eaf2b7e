// What a host and its GPUs must have for a run, and what fits into their memory. Pure functions of
// numbers, any thread; no GPU is needed. Each error is one line with the limit, what was asked for
// and what to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/device_info.h"
#include "base/result.h"
#include "model/memory_estimate.h"

namespace nanocp::runner {

// Compute capability 9.0, for which the kernels are compiled.
Status check_compute_capability(const backend::DeviceInfo& info);

// One GPU for each instance: `devices` are the wanted ones, [num_instances]; `num_found` are there.
Status check_device_count(const std::vector<int>& devices, int num_found);

struct WeightRoom {
  int device = 0;
  int num_instances = 1;
  int64_t total_bytes = 0;          // of the GPU
  int64_t free_bytes = 0;           // before anything of this program is there
  double memory_utilization = 0.9;  // 0: all that is free, where the number of KV blocks is given
};
// Whether the instance with most experts fits, as its weights lie on the GPU.
Status check_weights_fit(const model::WeightBytes& bytes, const WeightRoom& room);

struct KvRoom {
  int device = 0;
  int64_t total_bytes = 0;      // of the GPU
  int64_t free_bytes = 0;       // with weights, activations and exchange in place
  int64_t weight_bytes = 0;     // of those in place
  int64_t reserve_bytes = 0;    // of what is still to come: graphs
  int64_t block_bytes = 0;      // of one KV block in all layers
  int64_t existing_blocks = 0;  // blocks among what is in place
};
struct KvBlocks {
  int64_t num_blocks;
  std::string how;  // the sum that gives this number
};
// Blocks that fit under the share of the GPU that the program may take. Fails below two.
Result<KvBlocks> kv_blocks_that_fit(const KvRoom& room, double memory_utilization);

// Whether a given number of blocks fits into what is free beside the weights; `exchange_bytes` go
// with them.
Status check_kv_blocks_fit(const KvRoom& room, int64_t num_blocks, int64_t exchange_bytes);

}  // namespace nanocp::runner
