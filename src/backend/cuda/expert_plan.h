// Which rows each expert of this instance works on: the router's choices of all instances, sorted
// by local expert on the GPU. Deterministic: within an expert by source, row and choice. All
// pointers are device memory of the current device; nothing synchronises with the host, and
// everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/exchange_view.h"
#include "base/result.h"

namespace nanocp::cuda {

// Some rows of one expert that are multiplied together.
struct TokenTile {
  int32_t expert;  // local
  int32_t begin;   // first assignment
  int32_t count;   // 1 .. tile_rows
  int32_t unused;
};

// An assignment is one (row, expert) pair whose expert is owned here.
struct ExpertLists {
  int32_t* row_of;         // [max_assignments] source * max_rows + row
  int32_t* assignment_of;  // [num_instances * max_rows * topk]; -1: not here. Rows that exist only
  TokenTile* tiles;        // [max_tiles] by expert
  int32_t* num_tiles;      // one word
};

struct ExpertPlanArgs {
  ExchangeView exchange;
  ExchangeEpoch epoch;       // of the dispatch that is waited for
  int32_t expert_begin = 0;  // first expert owned here
  int32_t num_experts = 0;   // owned here, up to 1024
  int32_t tile_rows = 0;     // rows of a tile at most
  // The launch before it in the stream is the dispatch of this epoch. It may start beside that one,
  // since nobody reads the lists any more once an own choice of this epoch is posted.
  bool overlaps = false;
  ExpertLists lists;
};

struct ExpertPlanSizes {
  int64_t max_assignments;
  int64_t max_tiles;
};
ExpertPlanSizes expert_plan_sizes(const ExchangeView& exchange, int32_t num_experts,
                                  int32_t tile_rows);

// Waits for the rows of all instances, then fills the lists.
Status launch_expert_plan(const ExpertPlanArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
