// How the work of latent prefill attention is cut: what the schedule writes, and attend and merge
// read, in device memory.
#pragma once

#include <cuda.h>

#include <cmath>

#include "backend/cuda/mla_prefill.h"

namespace nanocp::cuda {
namespace {

constexpr int kTileQueries = 64;
constexpr int kTileTokens = 64;
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;

// 64 adjacent (row, head) pairs of an item: the queries that a block takes at once.
struct Unit {
  int32_t item;
  int32_t first;       // pair of the item
  int32_t tile_begin;  // of the unit's first tile of tokens, counted over all units
  int32_t num_tiles;
};

// Where a block begins, and how many tiles it takes from there.
struct Stretch {
  int32_t unit;
  int32_t tile;  // of the unit
  int32_t count;
};

// A unit that begins in one block and ends in a later one.
struct SplitUnit {
  int32_t unit;
  int32_t block;  // the first one
  int32_t count;  // blocks that share it
};

struct Workspace {
  Stretch* stretches;   // [grid]
  SplitUnit* splits;    // [grid]
  int32_t* num_splits;  // up to grid
  int32_t* item_begin;  // [max_rows], first unit of each item
  // [units_max]: units with tiles from the front, those that see nothing from the back.
  Unit* units;
  int32_t* num_neutral;  // of the latter
  float* partial_out;    // [2 * grid, 64, 512]
  float* partial_max;    // [2 * grid, 64], base 2
  float* partial_sum;    // [2 * grid, 64]
};

struct Params {
  CUtensorMap queries;  // boxes of 64 pairs
  CUtensorMap tokens;   // boxes of box_tokens
  MlaPrefillArgs args;
  Workspace workspace;
  int32_t units_max;
  int32_t grid;
  int32_t box_tokens;
  float scale_log2;
};

// Goes through a stretch, segment by segment: the tiles [tile, end) of one unit.
struct SegmentWalk {
  int32_t index;
  int32_t tile;
  int32_t left;  // tiles of the stretch from here on
  Unit unit;

  __device__ void start(const Params& params, const Stretch& stretch) {
    index = stretch.unit;
    tile = stretch.tile;
    left = stretch.count;
    if (left > 0) unit = params.workspace.units[index];
  }
  __device__ int32_t count() const { return min(left, unit.num_tiles - tile); }
  __device__ void next(const Params& params) {
    left -= count();
    tile = 0;
    if (left <= 0) return;
    unit = params.workspace.units[++index];
  }
};

}  // namespace
}  // namespace nanocp::cuda
