// Device code of mla_decode.cu: what its kernels share.
#pragma once

#include <cuda.h>

#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device/warpgroup_mma.cuh"
#include "backend/cuda/mla_decode.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kTileTokens = 64;
constexpr int kHeads = 64;  // rows of a tensor-core product
constexpr int kGroupThreads = 128;
constexpr int kComputeThreads = 2 * kGroupThreads;
constexpr int kThreads = kComputeThreads + kGroupThreads;
// Of a thread; the kernel starts with 168 for all.
constexpr int kComputeRegisters = 232;
constexpr int kProducerRegisters = 40;
// The same where the warps that fetch tiles spread codes out.
constexpr int kComputeRegistersBesideSpreaders = 208;
constexpr int kSpreaderRegisters = 88;
constexpr int kStages = 2;
constexpr int kTileBoxes = kTileTokens / 16;  // at most: a block has a multiple of 16 tokens
constexpr int kFewHeadsMax = 32;              // in mla_few_kernels.cuh
constexpr int kChunks = kLatentKeyDim / 64;   // of a tile or the queries: 64 rows of 128 bytes
constexpr int kHalfChunks = kLatentDim / 64 / 2;
constexpr int kRotaryChunk = kChunks - 1;
// Of a block, under way at a time; measured.
constexpr int kChunksAhead = 6;
constexpr uint32_t kChunkBytes = 64 * 128;
constexpr uint32_t kTileBytes = kChunks * kChunkBytes;
constexpr int kPartChunks = 3;  // of a tile for few heads, which arrives in three parts
constexpr int kLanesMax = 144;
// Numbers of barriers of part of a block; the first two are two each, one of each warpgroup.
constexpr int kWeightsBarrier = 1;   // a tile's weights have been made
constexpr int kScoresBarrier = 3;    // a tile's scores have been made, its tail cleared
constexpr int kSumsBarrier = 5;      // a segment's sums of weights have been made
constexpr int kQueriesBarrier = 7;   // the first queries have been copied
constexpr int kJoinBarrier = 8;      // of the warpgroup that joins; few heads: the next one too
constexpr int kPartsBarrier = 10;    // few heads: all of the lane's parts have been made
constexpr int kJoinAllBarrier = 11;  // few heads: of both warpgroups, joining one row
constexpr int kIdleThreads = kGroupThreads - 32;  // of the last warpgroup: they ask for no tiles
constexpr int32_t kRowBytes = kLatentKeyDim * 2;
constexpr int kMinStretchTiles = 2;  // less is not worth a partial result
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;

struct RowSpan {
  int32_t token_end;   // the row sees local tokens before this
  int32_t tile_begin;  // of the row's first tile on the line of all rows' tiles
  int32_t num_tiles;
};

// Where a lane begins on the line of tiles, and how many it takes from there; with copies of what
// belongs to the first row, so that a block needs no further tables to begin.
struct Stretch {
  int32_t row;   // index in rows and spans
  int32_t tile;  // of the row
  int32_t count;
  RowSpan span;
  AttentionRow info;
  int32_t first_blocks[kTileBoxes];  // of the boxes of the first tile; -1: there is none
};

// A row that lies in several lanes, each of which leaves its part.
struct SharedRow {
  int32_t row;         // of out and lse
  int32_t first_lane;  // where it begins
  int32_t num_parts;   // 0: there is no such row
};

struct Workspace {
  Stretch* stretches;      // [lanes]
  SharedRow* shared_rows;  // [lanes, 2]: begun in an earlier lane; begun here and unfinished
  RowSpan* spans;          // [max_rows]
  // A lane has two slots for each group of heads; the second is for the row that begins in it.
  float* partial_out;      // [2 * lanes * groups, slot_heads, 512]
  float* partial_max;      // [2 * lanes * groups, slot_heads], base 2
  float* partial_sum;      // likewise
  float2* partial_stats;   // instead of both for few heads: [2, slot_heads, kLanesMax]
  uint4* code_part_stats;  // the same where the cache holds codes, see mla_few_code_join.cuh
  uint32_t* partial_soon;  // few heads and codes: [2, kLanesMax], launches whose parts come soon
  // [lanes, groups] parts that are there of the row that begins in a lane and does not end in it.
  // Zero between launches; for few heads they count those of all launches behind the schedule.
  int32_t* counters;
};

// A lane is one block for each group of 64 heads; the blocks of a lane go through the same tiles at
// the same time, so that the second-level cache serves all but the first.
struct Params {
  CUtensorMap q_map;      // [rows, num_heads, 576]
  CUtensorMap cache_map;  // [blocks, block_size, 576]; few heads: see describe_cache
  MlaDecodeArgs args;
  Workspace workspace;
  int32_t groups;
  int32_t lanes;
  int32_t slot_heads;  // heads kept of a group
  int32_t box_tokens;  // tokens of a copy, which lie in one block: a divisor of 64
  float scale_log2;
};

__device__ inline bool is_remote(const Params& params, const AttentionRow& row) {
  const ExchangeView& exchange = params.args.exchange;
  return exchange.num_instances > 1 && row.source >= 0 && row.source != exchange.self;
}

// One thread: until another instance's queries and what came with them have arrived. After a wait
// that failed the step computes on stale data and is thrown away by the host.
__device__ inline void wait_for_source(const Params& params, int32_t source) {
  const ExchangeView& exchange = params.args.exchange;
  wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kQuery, source),
                number_of(params.args.epoch), exchange.wait, WaitPurpose::kQuery, source);
}

__device__ inline int32_t partial_slot(const Params& params, int32_t lane, bool begins_here,
                                       int32_t group) {
  return (2 * lane + (begins_here ? 1 : 0)) * params.groups + group;
}

}  // namespace
}  // namespace nanocp::cuda
