// What one instance does in one step, as plain numbers. The scheduler fills it; the runner carries
// it to the device; model, comm and ops read it. Spans point into the StepPlan and live as long as
// it does.
//
// Rows are the instance's own: one per token that is bound to it in this step (a decode token, or
// each token of a prefill chunk). A row's KV may be held anywhere: queries go out by `query_sends`,
// new K/V goes out by `kv_sends`, and `items` lists every piece of attention this instance does,
// for its own rows and for received ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/ids.h"

namespace nanocp {

// For each destination instance the own rows sent to it. Row `rows(d)[i]` arrives in receive slot i
// of the region that destination d keeps for this instance. A table per destination: destination
// sets of different rows need not be nested.
struct RowTable {
  std::vector<std::vector<int32_t>> rows_of;  // [num_instances][sent rows], own row indices

  void reset(int num_instances) {
    rows_of.resize(static_cast<size_t>(num_instances));
    for (auto& rows : rows_of) rows.clear();
  }
  std::span<const int32_t> rows(InstanceId destination) const {
    return rows_of[static_cast<size_t>(destination)];
  }
  int32_t add(InstanceId destination, int32_t row) {  // returns the receive slot
    auto& rows = rows_of[static_cast<size_t>(destination)];
    rows.push_back(row);
    return static_cast<int32_t>(rows.size()) - 1;
  }
};

// One new K/V entry written to this instance's cache.
struct KvAppend {
  InstanceId source;  // the row's binding; this instance itself for a local tail
  int32_t row;        // own row index if source is this instance, else the K/V receive slot
  int64_t slot;       // block_id * block_size + offset in the block
};

// Attention of `num_rows` consecutive tokens of one sequence over this instance's shard of it.
// Row i sits at position first_position + i and sees the shard's tokens at positions <= its own.
struct AttentionItem {
  InstanceId source;  // the rows' binding; this instance itself for local rows
  int32_t row_begin;  // own row index if local, else the query receive slot; rows are adjacent
  int32_t num_rows;
  int32_t first_position;              // in tokens from the start of the sequence
  SequenceId sequence;                 // for reports only
  std::span<const BlockId> blocks;     // the shard, by rising position; may be empty
  std::span<const int32_t> block_idx;  // block i holds positions block_idx[i] * block_size ...
};

// The id of own row `row` is the token that the step before this one samples as number `sample` of
// the sample rows of instance `source`. Only in steps that are planned before that step is over.
struct UnreadToken {
  int32_t row;
  InstanceId source;
  int32_t sample;
};

struct InstancePlan {
  std::vector<TokenId> token_ids;           // [num_rows]; kNoToken for unread ones
  std::vector<UnreadToken> unread_tokens;   // by rising row
  std::vector<int32_t> positions;           // [num_rows]
  std::vector<int32_t> sample_rows;         // rows whose logits are needed, rising
  std::vector<int32_t> score_rows;          // likewise, to score the prompt token that follows
  RowTable query_sends;                     // own rows to remote holders
  RowTable kv_sends;                        // own rows whose K/V is appended elsewhere
  std::vector<int32_t> num_query_receives;  // [num_instances], equals the sender's table
  std::vector<int32_t> num_kv_receives;     // [num_instances]
  std::vector<KvAppend> appends;
  std::vector<AttentionItem> items;  // local ones first

  int32_t num_rows() const { return static_cast<int32_t>(token_ids.size()); }

  void reset(int num_instances) {
    token_ids.clear();
    unread_tokens.clear();
    positions.clear();
    sample_rows.clear();
    score_rows.clear();
    query_sends.reset(num_instances);
    kv_sends.reset(num_instances);
    num_query_receives.assign(static_cast<size_t>(num_instances), 0);
    num_kv_receives.assign(static_cast<size_t>(num_instances), 0);
    appends.clear();
    items.clear();
  }
};

}  // namespace nanocp
