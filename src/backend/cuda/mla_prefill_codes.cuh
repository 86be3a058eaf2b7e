// Device code of mla_prefill.cu: the warps that fill the attend kernel's shared memory where the
// cache holds e4m3 codes. Four of them spread tiles out; the first one also asks for queries. As in
// mla_code_producer.cuh, codes are asked for as soon as their place is free, between the steps of
// the tile before, and what only asking needs is in shared memory.
#pragma once

#include "backend/cuda/mla_prefill_shared.cuh"

namespace nanocp::cuda {
namespace {

struct CodeLoader {
  const Params& params;
  Shared& shared;
  const CodeWarp& codes;
  int32_t count;             // tiles
  int32_t queries_tile = 0;  // the first one of the segment whose queries are due; -1: none are

  __device__ CodeState& state() const { return shared.code_states[codes.warp]; }

  // Keeps the state. All lanes have read what was there.
  __device__ void keep(const SegmentWalk& walk, const PrefillItem& item, int32_t tile) const {
    __syncwarp();
    if (codes.lane == 0) {
      state().walk = walk;
      state().item = item;
      state().tile = tile;
    }
    __syncwarp();
  }

  // The block of this warp's part of a tile; past the last one any does, for no row sees it.
  __device__ auto find_block(const PrefillItem& item) const {
    return [this, item](int32_t tile) {
      return find_run(params.args, item, tile * kTileTokens + codes.warp * kCodeTokens).block;
    };
  }

  __device__ void start(const SegmentWalk& walk) const {
    const PrefillItem item = params.args.items[walk.unit.item];
    keep(walk, item, walk.tile);
    state().blocks.start(walk.tile, codes.lane, find_block(item));
  }

  __device__ bool must_wait(const PrefillItem& item) const {
    return params.args.exchange.num_instances > 1 && item.source >= 0 &&
           item.source != params.args.exchange.self && item.source != state().open_source;
  }
  __device__ void open(const PrefillItem& item) const {
    int32_t open_source = state().open_source;
    wait_for_source(params.args, item.source, &open_source);
    __syncwarp();
    if (codes.lane == 0) state().open_source = open_source;
    __syncwarp();
  }

  __device__ void load_queries() {
    queries_tile = -1;
    if (codes.warp != 0) return;
    const int32_t number = state().num_queries;
    wait_phase(shared_address(&shared.q_free), (number + 1) & 1);
    ask_queries(params, state().item, state().walk.unit, shared);
    __syncwarp();
    if (codes.lane == 0) state().num_queries = number + 1;
    __syncwarp();
  }

  // The queries of a segment whose first tile has been asked for, if their place is free.
  __device__ void try_queries(int32_t asked) {
    if (queries_tile < 0 || asked <= queries_tile) return;
    if (codes.warp == 0 && !all_ended(shared.q_free, (state().num_queries + 1) & 1)) return;
    load_queries();
  }

  // Asks for tile `number`; false: not possible yet without waiting.
  __device__ bool try_ask(int32_t number, bool may_wait) {
    const int stage = number % kStages;
    const uint32_t parity = (number / kStages + 1) & 1;
    if (!may_wait && !all_ended(shared.kv_free[stage][1], parity)) return false;
    SegmentWalk walk = state().walk;
    PrefillItem item = state().item;
    int32_t tile = state().tile;
    if (tile == walk.tile + walk.count()) {
      if (queries_tile >= 0) return false;
      walk.next(params);
      item = params.args.items[walk.unit.item];
      tile = walk.tile;
      queries_tile = number;
      state().blocks.start(tile, codes.lane, find_block(item));
    }
    if (!may_wait && must_wait(item)) {
      keep(walk, item, tile);
      return false;
    }
    open(item);
    if (may_wait) wait_phase(shared_address(&shared.kv_free[stage][1]), parity);
    const int32_t token = tile * kTileTokens + codes.warp * kCodeTokens;
    const CodeRun run = {state().blocks.at(tile, codes.lane, find_block(item)),
                         token % params.args.config.block_size};
    codes.ask(stage, shared_address(shared.kv[stage]), run, evict_normal_policy());
    keep(walk, item, tile + 1);
    return true;
  }

  __device__ void work() {
    try_ask(0, true);
    for (int32_t number = 0; number < count; ++number) {
      const int stage = number % kStages;
      bool is_ahead = number + 1 == count;
      wait_phase(shared_address(&shared.kv_free[stage][0]), (number / kStages + 1) & 1);
      codes.spread(stage, shared_address(shared.kv[stage]), (number / kStages) & 1, [&](int step) {
        const bool is_last = step + 1 == kCodeSteps;
        if (codes.lane == 0 && (2 * step + 2 == kLeftChunks || is_last)) {
          arrive(shared_address(&shared.kv_full[stage][is_last ? 1 : 0]));
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
