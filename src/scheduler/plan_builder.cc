#include "scheduler/plan_builder.h"

#include <algorithm>

#include "base/check.h"
#include "base/prefetch.h"

namespace nanocp::scheduler {

namespace {

// What a row needs lies apart, and one thing points to the next: each is fetched some rows ahead.
void prefetch_rows(std::span<Entry* const> entries, std::span<const SamplingSequence> sequences,
                   size_t row) {
  constexpr size_t kFar = 12;
  constexpr size_t kMiddle = 8;
  constexpr size_t kNear = 4;
  if (row + kFar < entries.size()) {
    const Entry* entry = entries[row + kFar];
    prefetch(entry);
    prefetch(&entry->append_holder);
    prefetch(sequences[row + kFar].sequence);
    prefetch(&sequences[row + kFar].sequence->request.prompt);
  }
  if (row + kMiddle < entries.size()) {
    const kvcache::KvPlacement& placement = entries[row + kMiddle]->placement;
    prefetch(placement.shards().data());
    if (placement.num_blocks() > 0) prefetch(&placement.block(placement.num_blocks() - 1));
    const std::vector<TokenId>& output = sequences[row + kMiddle].sequence->output;
    if (!output.empty()) prefetch(&output.back());
  }
  if (row + kNear < entries.size()) {
    for (const kvcache::Shard& shard : entries[row + kNear]->placement.shards()) {
      prefetch(shard.blocks.data());
      prefetch(shard.block_idx.data());
    }
  }
}

}  // namespace

void PlanBuilder::build(const DecodeRows& decoding, std::span<const PlannedChunk> chunks,
                        int32_t num_instances, StepPlan& plan) {
  const auto count = static_cast<size_t>(num_instances);
  plan.instances.resize(count);
  plan.sample_tasks.resize(count);
  plan.score_tasks.resize(count);
  remote_items_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    plan.instances[i].reset(num_instances);
    plan.sample_tasks[i].clear();
    plan.score_tasks[i].clear();
    remote_items_[i].clear();
  }
  plan.chunks.clear();
  for (InstanceId i = 0; i < num_instances; ++i) {
    const auto entries = decoding.entries(i);
    for (size_t row = 0; row < entries.size(); ++row) {
      prefetch_rows(entries, decoding.sequences(i), row);
      add_chunk({entries[row], i, 1}, decoding.position(*entries[row]), plan);
    }
  }
  for (const PlannedChunk& chunk : chunks) {
    add_chunk(chunk, chunk.entry->sequence->num_cached_tokens, plan);
  }
  finish(plan);
}

void PlanBuilder::add_chunk(const PlannedChunk& chunk, int64_t first_position, StepPlan& plan) {
  const request::Sequence& sequence = *chunk.entry->sequence;
  const auto binding = static_cast<size_t>(chunk.binding);
  InstancePlan& own = plan.instances[binding];
  const ChunkRows rows{.entry = *chunk.entry,
                       .binding = chunk.binding,
                       .row_begin = own.num_rows(),
                       .first_position = static_cast<int32_t>(first_position),
                       .num_rows = chunk.num_tokens};
  add_tokens(rows, own);
  add_appends(rows, plan);
  for (const kvcache::Shard& shard : chunk.entry->placement.shards()) add_item(rows, shard, plan);

  // Once a token is sampled, a prompt is computed for its K/V alone.
  const bool scores = sequence.num_outputs() == 0 && sequence.request.num_prompt_logprobs >= 0;
  if (scores) add_scores(rows, plan);
  const bool samples = rows.first_position + rows.num_rows == sequence.num_tokens();
  if (samples) {
    const int32_t row = rows.row_begin + rows.num_rows - 1;
    chunk.entry->sampled_on = chunk.binding;
    chunk.entry->sample = static_cast<int32_t>(own.sample_rows.size());
    own.sample_rows.push_back(row);
    plan.sample_tasks[binding].push_back(
        {.sequence = &sequence,
         .row = row,
         .output_index = static_cast<int32_t>(sequence.num_outputs())});
  }
  plan.chunks.push_back({.sequence = sequence.id,
                         .binding = chunk.binding,
                         .first_position = rows.first_position,
                         .num_tokens = rows.num_rows,
                         .samples = samples});
}

void PlanBuilder::add_tokens(const ChunkRows& rows, InstancePlan& own) {
  const request::Sequence& sequence = *rows.entry.sequence;
  for (int32_t i = 0; i < rows.num_rows; ++i) {
    const int32_t position = rows.first_position + i;
    own.positions.push_back(position);
    if (!sequence.is_unread(position)) {
      own.token_ids.push_back(sequence.token(position));
      continue;
    }
    NANOCP_CHECK(rows.entry.sampled_on != kNoInstance && position + 1 == sequence.num_tokens());
    own.token_ids.push_back(kNoToken);
    own.unread_tokens.push_back(
        {.row = rows.row_begin + i, .source = rows.entry.sampled_on, .sample = rows.entry.sample});
  }
}

void PlanBuilder::add_scores(const ChunkRows& rows, StepPlan& plan) {
  const request::Sequence& sequence = *rows.entry.sequence;
  const auto binding = static_cast<size_t>(rows.binding);
  for (int32_t i = 0; i < rows.num_rows; ++i) {
    const int32_t next = rows.first_position + i + 1;
    if (next >= sequence.num_prompt_tokens()) return;
    const int32_t row = rows.row_begin + i;
    plan.instances[binding].score_rows.push_back(row);
    plan.score_tasks[binding].push_back({.sequence = &sequence, .row = row, .position = next});
  }
}

void PlanBuilder::add_appends(const ChunkRows& rows, StepPlan& plan) const {
  InstancePlan& own = plan.instances[static_cast<size_t>(rows.binding)];
  for (int32_t i = 0; i < rows.num_rows; ++i) {
    const int64_t position = rows.first_position + i;
    const InstanceId holder = rows.entry.placement.block_of(position).holder;
    const int64_t slot = rows.entry.placement.slot_of(position);
    const int32_t own_row = rows.row_begin + i;
    const int32_t row = holder == rows.binding ? own_row : own.kv_sends.add(holder, own_row);
    plan.instances[static_cast<size_t>(holder)].appends.push_back(
        {.source = rows.binding, .row = row, .slot = slot});
  }
}

void PlanBuilder::add_item(const ChunkRows& rows, const kvcache::Shard& shard, StepPlan& plan) {
  const ShardPiece piece = piece_of(shard, {rows.first_position, rows.num_rows}, block_size_);
  if (piece.num_rows == 0) return;
  const auto num_visible = static_cast<size_t>(piece.num_blocks);
  AttentionItem item{.source = rows.binding,
                     .row_begin = rows.row_begin + piece.num_skipped,
                     .num_rows = piece.num_rows,
                     .first_position = rows.first_position + piece.num_skipped,
                     .sequence = rows.entry.id(),
                     .blocks = std::span(shard.blocks).first(num_visible),
                     .block_idx = std::span(shard.block_idx).first(num_visible)};
  const auto holder = static_cast<size_t>(shard.holder);
  if (shard.holder == rows.binding) {
    plan.instances[holder].items.push_back(item);
    return;
  }
  InstancePlan& own = plan.instances[static_cast<size_t>(rows.binding)];
  const int32_t first_row = item.row_begin;
  item.row_begin = static_cast<int32_t>(own.query_sends.rows(shard.holder).size());
  for (int32_t i = 0; i < item.num_rows; ++i) own.query_sends.add(shard.holder, first_row + i);
  remote_items_[holder].push_back(item);
}

void PlanBuilder::finish(StepPlan& plan) {
  for (size_t i = 0; i < plan.instances.size(); ++i) {
    InstancePlan& instance = plan.instances[i];
    instance.items.insert(instance.items.end(), remote_items_[i].begin(), remote_items_[i].end());
    for (size_t source = 0; source < plan.instances.size(); ++source) {
      const InstancePlan& sender = plan.instances[source];
      instance.num_query_receives[source] =
          static_cast<int32_t>(sender.query_sends.rows_of[i].size());
      instance.num_kv_receives[source] = static_cast<int32_t>(sender.kv_sends.rows_of[i].size());
    }
  }
}

}  // namespace nanocp::scheduler
