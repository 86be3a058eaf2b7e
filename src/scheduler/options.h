// Limits of the scheduler. Plain data; check_options says what is wrong with it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace nanocp::scheduler {

struct SchedulerOptions {
  std::vector<int64_t> num_blocks;    // [num_instances], KV blocks of each
  int32_t block_size = 16;            // tokens
  int32_t max_batched_tokens = 2048;  // rows of one instance in one step
  int32_t max_num_seqs = 256;         // running sequences bound to one instance
  int32_t prefill_chunk_tokens = 0;   // per sequence and step; 0: only max_batched_tokens limits
  int32_t admission_lookahead = 4;    // waiting requests looked at behind blocked ones
  int32_t max_overtakes = 16;         // how often later requests may pass one that has no room
  // Neighbours over fast links, such as the GPUs of one host; 0: all instances.
  int32_t num_instances_per_domain = 0;
  double watermark = 0.01;  // share of blocks that admission leaves to running requests
  // Beside the watermark, what these are expected to grow by (CONTRACT.md, scheduler.reserve).
  bool reserves_growth = true;

  int32_t num_instances() const { return static_cast<int32_t>(num_blocks.size()); }
};

Status check_options(const SchedulerOptions& options);

}  // namespace nanocp::scheduler
