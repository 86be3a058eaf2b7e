// Device code of mla_decode.cu: the warps that fill the attend kernel's shared memory where the
// cache holds e4m3 codes. Four of them spread tiles out; the first one also asks for queries.
#pragma once

#include "backend/cuda/mla_producer.cuh"

namespace nanocp::cuda {
namespace {

// A warp. It asks for the codes of one tile while it spreads out the one before, as soon as their
// place is free: that may take until the tile that is being spread out has been scored, so nothing
// there waits for it. What only asking needs is in shared memory: spreading out needs the
// registers.
struct CodeProducer {
  const Params& params;
  Shared& shared;
  const CodeWarp& codes;
  uint64_t policy;
  int32_t group;
  int32_t count;             // tiles
  int32_t queries_tile = 0;  // the first one of the segment whose queries are due; -1: none are

  __device__ CodeState& state() const { return shared.code_states[codes.warp]; }

  // Keeps the state. All lanes have read what was there.
  __device__ void keep(const Segment& segment, int32_t tile) const {
    __syncwarp();
    if (codes.lane == 0) {
      state().segment = segment;
      state().tile = tile;
    }
    __syncwarp();
  }

  // The block of this warp's part of a tile of a row.
  __device__ auto find_block(const AttentionRow& row) const {
    return [this, begin = row.block_begin, num_blocks = row.num_blocks](int32_t tile) {
      const int32_t token = tile * kTileTokens + codes.warp * kCodeTokens;
      const int32_t at = token / params.args.config.block_size;
      return at < num_blocks ? params.args.blocks[begin + at] : -1;
    };
  }

  __device__ void start(const Stretch& stretch) {
    Segment segment;
    segment.start(stretch);
    keep(segment, segment.tile);
    state().blocks.start(segment.tile, codes.lane, find_block(segment.info));
  }

  // Waits for the row's source, if it is not the one waited for last.
  __device__ bool must_wait(const AttentionRow& row) const {
    return is_remote(params, row) && row.source != state().open_source;
  }
  __device__ void open(const AttentionRow& row) const {
    if (!must_wait(row)) return;
    __syncwarp();
    if (codes.lane == 0) {
      wait_for_source(params, row.source);
      state().open_source = row.source;
    }
    __syncwarp();
    publish_to_copies();
  }

  __device__ void load_queries() {
    queries_tile = -1;
    if (codes.warp != 0) return;
    const int32_t number = state().num_queries;
    wait_phase(shared_address(&shared.q_empty), (number + 1) & 1);
    __syncwarp();
    if (codes.lane == 0) {
      state().num_queries = number + 1;
      const uint32_t barrier = shared_address(&shared.q_full);
      arrive_expecting(barrier, kTileBytes);
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        load_box(shared_address(shared.q) + chunk * kChunkBytes, params.q_map, chunk * 64,
                 group * kHeads, state().segment.info.row, barrier, evict_normal_policy());
      }
    }
    __syncwarp();
  }

  // The queries of a segment whose first tile has been asked for, if their place is free.
  __device__ void try_queries(int32_t asked) {
    if (queries_tile < 0 || asked <= queries_tile) return;
    if (codes.warp == 0 && !all_ended(shared.q_empty, (state().num_queries + 1) & 1)) return;
    load_queries();
  }

  // Asks for tile `number`; false: not possible yet without waiting.
  __device__ bool try_ask(int32_t number, bool may_wait) {
    const int stage = number % kStages;
    const uint32_t parity = (number / kStages + 1) & 1;
    if (!may_wait && (!all_ended(shared.empty[stage][1], parity) ||
                      !all_ended(shared.empty[stage][2], parity))) {
      return false;
    }
    Segment segment = state().segment;
    int32_t tile = state().tile;
    if (tile == segment.tile + segment.count) {
      if (queries_tile >= 0) return false;
      segment.next(params);
      tile = segment.tile;
      queries_tile = number;
      state().blocks.start(tile, codes.lane, find_block(segment.info));
    }
    if (!may_wait && must_wait(segment.info)) {
      keep(segment, tile);
      return false;
    }
    open(segment.info);
    if (may_wait) {
      wait_phase(shared_address(&shared.empty[stage][1]), parity);
      wait_phase(shared_address(&shared.empty[stage][2]), parity);
    }
    const int32_t token = tile * kTileTokens + codes.warp * kCodeTokens;
    const CodeRun run = {state().blocks.at(tile, codes.lane, find_block(segment.info)),
                         token % params.args.config.block_size};
    codes.ask(stage, shared_address(shared.tiles[stage]), run, policy);
    keep(segment, tile + 1);
    return true;
  }

  __device__ void work() {
    open(state().segment.info);
    load_queries();
    try_ask(0, true);
    for (int32_t number = 0; number < count; ++number) {
      const int stage = number % kStages;
      bool is_ahead = number + 1 == count;
      wait_phase(shared_address(&shared.empty[stage][0]), (number / kStages + 1) & 1);
      codes.spread(stage, shared_address(shared.tiles[stage]), (number / kStages) & 1,
                   [&](int step) {
                     const int chunk = 2 * step + codes.lane;
                     if (codes.lane < 2 && chunk < kChunks) {
                       arrive(shared_address(&shared.full[stage][chunk]));
                     }
                     try_queries(is_ahead ? number + 2 : number + 1);
                     if (!is_ahead) is_ahead = try_ask(number + 1, false);
                   });
      // Those of a segment that begins later can be waited for when its first tile is there.
      if (queries_tile >= 0 && queries_tile <= number) load_queries();
      if (!is_ahead) try_ask(number + 1, true);
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
