// How much each instance does in a step, in counts that cost models weigh. Plain data; pure
// functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kvcache/kv_placement.h"
#include "plan/ids.h"
#include "request/request.h"

namespace nanocp::scheduler {

// Instances [k * size, (k + 1) * size) are neighbours over fast links.
struct Domains {
  int32_t size;  // at least 1
  // `num_per_domain` of SchedulerOptions; 0: all are neighbours.
  static Domains of(int32_t num_per_domain, int32_t num_instances) {
    return {num_per_domain > 0 ? std::min(num_per_domain, num_instances) : num_instances};
  }
  bool are_near(InstanceId a, InstanceId b) const { return a / size == b / size; }
};

// Rows that travel because somebody else holds K/V that they see; one layer.
struct RouteCount {
  int32_t near_queries = 0;   // own rows sent to holders in the domain, once for each
  int32_t far_queries = 0;    // and to others
  int32_t near_partials = 0;  // results sent back for rows of others
  int32_t far_partials = 0;
  bool operator==(const RouteCount&) const = default;
  RouteCount& operator+=(const RouteCount& other);
};

// Counts of one layer.
struct InstanceWorkCount {
  int32_t num_rows = 0;           // own
  int32_t num_attended_rows = 0;  // rows of its pieces of attention, received ones included
  int64_t num_kv_tokens = 0;      // seen by single rows
  int64_t num_pairs = 0;          // rows of longer chunks times tokens that they see
  RouteCount routes;
  bool operator==(const InstanceWorkCount&) const = default;
};

// Who gets a token in a step.
struct SamplingSequence {
  request::Sequence* sequence;
  SequenceId id;  // of it, at hand: sequences lie apart
};

// The attention that one shard adds to a chunk of rows.
struct ShardPiece {
  int32_t num_blocks = 0;   // the first ones of the shard, those behind the chunk are not looked at
  int32_t num_skipped = 0;  // rows at the start that see nothing of the shard
  int32_t num_rows = 0;     // the others; 0: the shard has no part in the chunk
};
struct RowRange {
  int32_t first_position;
  int32_t num_rows;
};
ShardPiece piece_of(const kvcache::Shard& shard, const RowRange& rows, int32_t block_size);

// The chunk's part of every instance's work.
void add_chunk_work(const kvcache::KvPlacement& placement, InstanceId binding, const RowRange& rows,
                    const Domains& domains, std::span<InstanceWorkCount> work);
// What `num_rows` rows of `binding` that see K/V on `holder` add to both.
void add_route(InstanceId binding, InstanceId holder, int32_t num_rows, const Domains& domains,
               RouteCount& at_binding, RouteCount& at_holder);

}  // namespace nanocp::scheduler
