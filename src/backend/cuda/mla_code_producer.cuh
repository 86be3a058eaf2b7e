// Device code of mla_decode.cu: the warps that fill the attend kernel's shared memory where the
// cache holds e4m3 codes. Four of them spread tiles out; the first one also asks for queries.
#pragma once

#include "backend/cuda/mla_producer.cuh"

namespace nanocp::cuda {
namespace {

// A warp. It asks for the codes of one tile while it spreads out the one before, as soon as their
// place is free: that may take until the tile that is being spread out has been scored, so nothing
// there waits for it.
struct CodeProducer {
  const Params& params;
  Shared& shared;
  const CodeWarp& codes;
  uint64_t policy;
  Segment segment;         // of the tile to ask for next
  int32_t tile;            // this one, in its row
  CodeRun run;             // what of it is this warp's; block -1: nothing
  CodeRun run_after;       // of the tile after it in the row
  int32_t asked = 0;       // tiles
  uint32_t exponents = 0;  // of the last one asked for
  int32_t open_source = -1;
  int32_t num_queries = 0;   // segments whose queries have been asked for
  int32_t queries_tile = 0;  // the first tile of the one that is due
  bool queries_due = false;

  // `warp`'s run of a tile of a row.
  __device__ static CodeRun look_up(const Params& params, const AttentionRow& row, int32_t tile,
                                    int32_t warp) {
    const int32_t token = tile * kTileTokens + warp * kCodeTokens;
    const int32_t at = token / params.args.config.block_size;
    const int32_t block = at < row.num_blocks ? params.args.blocks[row.block_begin + at] : -1;
    return {block, token % params.args.config.block_size};
  }

  __device__ bool must_wait_for_source() const {
    return is_remote(params, segment.info) && segment.info.source != open_source;
  }
  __device__ void open() {
    if (!must_wait_for_source()) return;
    if (codes.lane == 0) wait_for_source(params, segment.info.source);
    __syncwarp();
    publish_to_copies();
    open_source = segment.info.source;
  }

  __device__ static bool all_ended(uint64_t& barrier, uint32_t parity) {
    return __all_sync(0xffffffffU, has_ended(shared_address(&barrier), parity)) != 0;
  }

  __device__ void load_queries(int32_t row, int32_t group) {
    const uint32_t parity = (num_queries + 1) & 1;
    ++num_queries;
    if (codes.warp != 0) return;
    wait_phase(shared_address(&shared.q_empty), parity);
    if (codes.lane != 0) return;
    const uint32_t barrier = shared_address(&shared.q_full);
    arrive_expecting(barrier, kTileBytes);
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      load_box(shared_address(shared.q) + chunk * kChunkBytes, params.q_map, chunk * 64,
               group * kHeads, row, barrier, evict_normal_policy());
    }
  }

  // The queries of a segment whose first tile has been asked for, if their place is free.
  __device__ void try_queries(int32_t group) {
    if (!queries_due || asked <= queries_tile) return;
    if (codes.warp == 0 && !all_ended(shared.q_empty, (num_queries + 1) & 1)) return;
    load_queries(segment.info.row, group);
    queries_due = false;
  }

  // Asks for the next tile, if there is one; false: not yet possible without waiting.
  __device__ bool try_ask(bool may_wait, int32_t count) {
    if (asked == count) return true;
    if (tile == segment.tile + segment.count) {
      if (queries_due) return false;
      segment.next(params);
      tile = segment.tile;
      queries_due = true;
      queries_tile = asked;
      run = look_up(params, segment.info, tile, codes.warp);
      run_after = look_up(params, segment.info, tile + 1, codes.warp);
    }
    const int stage = asked % kStages;
    const uint32_t parity = (asked / kStages + 1) & 1;
    if (may_wait) {
      open();
      wait_phase(shared_address(&shared.empty[stage][1]), parity);
      wait_phase(shared_address(&shared.empty[stage][2]), parity);
    } else if (must_wait_for_source() || !all_ended(shared.empty[stage][1], parity) ||
               !all_ended(shared.empty[stage][2], parity)) {
      return false;
    }
    codes.ask(stage, shared_address(shared.tiles[stage]), run, policy);
    exponents = run.block >= 0 ? codes.load_exponents(run) : 0;
    ++asked;
    ++tile;
    if (tile < segment.tile + segment.count && run_after.block >= 0) codes.prefetch(run_after);
    run = run_after;
    run_after = look_up(params, segment.info, tile + 1, codes.warp);
    return true;
  }

  __device__ void work(int32_t group, int32_t count) {
    open();
    load_queries(segment.info.row, group);
    try_ask(true, count);
    for (int32_t number = 0; number < count; ++number) {
      const int stage = number % kStages;
      const uint32_t to = shared_address(shared.tiles[stage]);
      const uint32_t own_exponents = exponents;
      bool is_ahead = false;
      wait_phase(shared_address(&shared.empty[stage][0]), (number / kStages + 1) & 1);
#pragma unroll 1
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        try_queries(group);
        if (!is_ahead) is_ahead = try_ask(false, count);
        codes.wait_codes(stage, chunk, (number / kStages) & 1);
        codes.spread(to, chunk, own_exponents);
        if (codes.lane == 0) arrive(shared_address(&shared.full[stage][chunk]));
      }
      // Those of a segment that begins later can be waited for when its first tile is there.
      if (queries_due && queries_tile <= number) {
        load_queries(segment.info.row, group);
        queries_due = false;
      }
      if (!is_ahead) try_ask(true, count);
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
