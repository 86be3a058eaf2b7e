// Device code of mla_prefill.cu: the warps that fill the attend kernel's shared memory where the
// cache holds e4m3 codes. Four of them spread tiles out; the first one also asks for queries. As in
// mla_code_producer.cuh, codes are asked for as soon as their place is free, between the chunks of
// the tile before.
#pragma once

#include "backend/cuda/mla_prefill_shared.cuh"

namespace nanocp::cuda {
namespace {

struct CodeLoader {
  const Params& params;
  Shared& shared;
  const CodeWarp& codes;
  SegmentWalk walk;  // of the tile to ask for next
  PrefillItem item;
  int32_t tile;            // this one, of the unit
  uint32_t asked = 0;      // tiles
  uint32_t exponents = 0;  // of the last one asked for
  int32_t open_source = -1;
  uint32_t num_queries = 0;   // segments whose queries have been asked for
  uint32_t queries_tile = 0;  // the first tile of the one that is due
  bool queries_due = false;

  // This warp's run of a tile; past the last block any tokens do, for no row sees them.
  __device__ CodeRun look_up(int32_t of_tile) const {
    const Run run = find_run(params.args, item, of_tile * kTileTokens + codes.warp * kCodeTokens);
    return {run.block, run.in_block};
  }

  __device__ void enter() {
    item = params.args.items[walk.unit.item];
    tile = walk.tile;
    queries_due = true;
    queries_tile = asked;
  }

  __device__ bool must_wait_for_source() const {
    return params.args.exchange.num_instances > 1 && item.source >= 0 &&
           item.source != params.args.exchange.self && item.source != open_source;
  }

  __device__ static bool all_ended(uint64_t& barrier, uint32_t parity) {
    return __all_sync(0xffffffffU, has_ended(shared_address(&barrier), parity)) != 0;
  }

  __device__ void load_queries() {
    const uint32_t parity = (num_queries + 1) & 1;
    ++num_queries;
    queries_due = false;
    if (codes.warp != 0) return;
    wait_phase(shared_address(&shared.q_free), parity);
    ask_queries(params, item, walk.unit, shared);
  }

  // The queries of a segment whose first tile has been asked for, if their place is free.
  __device__ void try_queries() {
    if (!queries_due || asked <= queries_tile) return;
    if (codes.warp == 0 && !all_ended(shared.q_free, (num_queries + 1) & 1)) return;
    load_queries();
  }

  // Asks for the next tile, if there is one; false: not yet possible without waiting.
  __device__ bool try_ask(bool may_wait, uint32_t count) {
    if (asked == count) return true;
    if (tile == walk.tile + walk.count()) {
      if (queries_due) return false;
      walk.next(params);
      enter();
    }
    const uint32_t stage = asked % kStages;
    const uint32_t parity = (asked / kStages + 1) & 1;
    if (may_wait) {
      wait_for_source(params.args, item.source, &open_source);
      wait_phase(shared_address(&shared.kv_free[stage][1]), parity);
    } else if (must_wait_for_source() || !all_ended(shared.kv_free[stage][1], parity)) {
      return false;
    }
    const CodeRun run = look_up(tile);
    codes.ask(static_cast<int>(stage), shared_address(shared.kv[stage]), run,
              evict_normal_policy());
    exponents = codes.load_exponents(run);
    ++asked;
    ++tile;
    return true;
  }

  __device__ void run(uint32_t count) {
    if (count == 0) return;
    enter();
    try_ask(true, count);
    for (uint32_t n = 0; n < count; ++n) {
      const uint32_t stage = n % kStages;
      const uint32_t to = shared_address(shared.kv[stage]);
      const uint32_t own_exponents = exponents;
      bool is_ahead = false;
      wait_phase(shared_address(&shared.kv_free[stage][0]), (n / kStages + 1) & 1);
#pragma unroll 1
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        try_queries();
        if (!is_ahead) is_ahead = try_ask(false, count);
        codes.wait_codes(static_cast<int>(stage), chunk, n / kStages & 1);
        codes.spread(to, chunk, own_exponents);
        if (codes.lane > 0) continue;
        if (chunk == kLeftChunks - 1) arrive(shared_address(&shared.kv_full[stage][0]));
        if (chunk == kChunks - 1) arrive(shared_address(&shared.kv_full[stage][1]));
      }
      // Those of a segment that begins later can be waited for when its first tile is there.
      if (queries_due && queries_tile <= n) load_queries();
      if (!is_ahead) try_ask(true, count);
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
