#include "scheduler/step_work.h"

namespace nanocp::scheduler {

RouteCount& RouteCount::operator+=(const RouteCount& other) {
  near_queries += other.near_queries;
  far_queries += other.far_queries;
  near_partials += other.near_partials;
  far_partials += other.far_partials;
  return *this;
}

ShardPiece piece_of(const kvcache::Shard& shard, const RowRange& rows, int32_t block_size) {
  // An empty shard is asked as well.
  if (shard.block_idx.empty()) return {.num_rows = rows.num_rows};
  const int32_t end_block = (rows.first_position + rows.num_rows - 1) / block_size + 1;
  const auto& idx = shard.block_idx;
  const auto end =
      idx.back() < end_block ? idx.end() : std::lower_bound(idx.begin(), idx.end(), end_block);
  if (end == idx.begin()) return {};
  // Rows before the shard's first position see nothing of it and stay at home.
  const int32_t num_skipped = std::max(0, idx.front() * block_size - rows.first_position);
  return {.num_blocks = static_cast<int32_t>(end - idx.begin()),
          .num_skipped = num_skipped,
          .num_rows = rows.num_rows - num_skipped};
}

namespace {

// Row r of the piece sees the shard's tokens at positions up to its own.
void add_piece_work(const kvcache::Shard& shard, const ShardPiece& piece, int32_t last_position,
                    int32_t block_size, InstanceWorkCount& work) {
  work.num_attended_rows += piece.num_rows;
  int64_t num_tokens = int64_t{piece.num_blocks} * block_size;
  const bool has_tail =
      piece.num_blocks > 0 &&
      shard.block_idx[static_cast<size_t>(piece.num_blocks) - 1] == last_position / block_size;
  if (has_tail) num_tokens -= block_size - 1 - last_position % block_size;
  if (piece.num_rows == 1) {
    work.num_kv_tokens += num_tokens;
    return;
  }
  // On average a row of the chunk does not see the half of its own chunk that is stored here.
  const int64_t own = has_tail ? std::min<int64_t>(num_tokens, piece.num_rows) : 0;
  work.num_pairs += piece.num_rows * num_tokens - own * piece.num_rows / 2;
}

}  // namespace

void add_route(InstanceId binding, InstanceId holder, int32_t num_rows, const Domains& domains,
               RouteCount& at_binding, RouteCount& at_holder) {
  const bool is_near = domains.are_near(binding, holder);
  (is_near ? at_binding.near_queries : at_binding.far_queries) += num_rows;
  (is_near ? at_holder.near_partials : at_holder.far_partials) += num_rows;
}

void add_chunk_work(const kvcache::KvPlacement& placement, InstanceId binding, const RowRange& rows,
                    const Domains& domains, std::span<InstanceWorkCount> work) {
  InstanceWorkCount& home = work[static_cast<size_t>(binding)];
  home.num_rows += rows.num_rows;
  const int32_t last_position = rows.first_position + rows.num_rows - 1;
  for (const kvcache::Shard& shard : placement.shards()) {
    const ShardPiece piece = piece_of(shard, rows, placement.block_size());
    if (piece.num_rows == 0) continue;
    InstanceWorkCount& there = work[static_cast<size_t>(shard.holder)];
    add_piece_work(shard, piece, last_position, placement.block_size(), there);
    if (shard.holder == binding) continue;
    add_route(binding, shard.holder, piece.num_rows, domains, home.routes, there.routes);
  }
}

}  // namespace nanocp::scheduler
