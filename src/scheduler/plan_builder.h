// Turns scheduled chunks into the numbers each instance needs: rows, send tables, K/V slots,
// attention items and sample tasks. Owned by Scheduler; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/step_plan.h"
#include "scheduler/step_planner.h"

namespace nanocp::scheduler {

class PlanBuilder {
 public:
  explicit PlanBuilder(int32_t block_size) : block_size_(block_size) {}

  // Fills the tables of `plan`: first the decode rows of each instance, then the chunks. Notes in
  // the entries where tokens are sampled.
  void build(const DecodeRows& decoding, std::span<const PlannedChunk> chunks,
             int32_t num_instances, StepPlan& plan);

 private:
  // The rows of one chunk on the instance it is bound to.
  struct ChunkRows {
    const Entry& entry;
    InstanceId binding;
    int32_t row_begin;
    int32_t first_position;
    int32_t num_rows;
  };

  void add_chunk(const PlannedChunk& chunk, int64_t first_position, StepPlan& plan);
  static void add_tokens(const ChunkRows& rows, InstancePlan& own);
  void add_appends(const ChunkRows& rows, StepPlan& plan) const;
  static void add_scores(const ChunkRows& rows, StepPlan& plan);
  void add_item(const ChunkRows& rows, const kvcache::Shard& shard, StepPlan& plan);
  void finish(StepPlan& plan);

  int32_t block_size_;
  std::vector<std::vector<AttentionItem>> remote_items_;  // [num_instances], go behind local ones
};

}  // namespace nanocp::scheduler
