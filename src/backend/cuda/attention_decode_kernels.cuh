// Device code of attention_decode.cu: the parameters of its kernels, the copies of K and V, and the
// running softmax of a warp.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device/kv_tile.cuh"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kTileTokens = 64;
constexpr int kWarps = 4;
constexpr int kWarpTokens = kTileTokens / kWarps;  // 16, the depth of one tensor-core product
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocksPerSm = 2;
constexpr int kHeadsMax = 16;  // query heads of a KV head
constexpr int kScheduleThreads = 1024;
constexpr int kGridMax = 512;            // blocks of the attend grid
constexpr int kMinStretchTiles = 2;      // less is not worth a partial result
constexpr int kFewParts = 8;             // of a segment, joined by the block that comes last
constexpr int kHelpersMax = 16;          // blocks that join more parts together
constexpr int kPieceLanes = 4;           // of what a warp joins at once: four values each
constexpr int32_t kHasJoined = 1 << 16;  // in a counter above the parts: helpers that have seen all
constexpr uint64_t kPartsTimeoutNs = 10'000'000'000;
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;
// A running maximum (base 2) rises only for scores above it by more than this: weights are then up
// to 2^8, and results are rarely rescaled.
constexpr float kMaxSlack = 8.0F;

// Local token range [token_begin, token_end) of a row in its shard, and its tiles in the line.
struct RowSpan {
  int32_t token_begin;
  int32_t token_end;
  int32_t tile_begin;  // of the row's first tile, counted in tiles per head over all rows
  int32_t num_tiles;   // per head
};

// Which blocks of the attend grid share a segment: the first of them, and their number.
struct Sharing {
  int32_t origin;
  int32_t parts;
};

// Where a block of the attend grid begins, and how many tiles it takes from there; with copies of
// what belongs to the first row, so that the block needs no further tables to begin.
struct Stretch {
  int32_t row;  // index in rows and spans
  int32_t kv_head;
  int32_t tile;  // of the (row, KV head) segment
  int32_t count;
  RowSpan span;
  AttentionRow info;
  Sharing first;       // of the segment that the stretch begins in
  int32_t last_parts;  // of the segment that it ends in, if another one: it begins here
};

struct Workspace {
  Stretch* stretches;     // [grid]
  RowSpan* spans;         // [max_rows]
  int32_t* neutral_rows;  // [1 + max_rows] number and indices of the rows that see nothing
  float* partial_out;     // [2 * grid, kHeadsMax, head_dim]
  float2* partial_stats;  // [2 * grid, kHeadsMax] maximum (base 2) and sum
  int32_t* counters;  // [grid] parts that are there of the segment that begins in a block and does
                      // not end in it. Zero between launches.
};

struct Params {
  AttentionDecodeArgs args;
  Workspace workspace;
  int32_t group;  // query heads per KV head
  int32_t grid;
  uint32_t block_factor;  // 2^32 / (block_size / 16), rounded up; 0 for blocks of 16 tokens
  float scale_log2;
};

// Of a token whose index is a multiple of 16: a division by multiplication, exact below 2^28.
__device__ inline uint32_t block_of_token(const Params& params, int32_t token) {
  const uint32_t sixteens = static_cast<uint32_t>(token) / kWarpTokens;
  return params.block_factor == 0 ? sixteens : __umulhi(sixteens, params.block_factor);
}

// 2^x for any x; results below 2^-126 are 0.
__device__ inline float power_of_2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Whether the row's query and part of its KV come from another instance.
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

// A place on the line of tiles.
struct TileCursor {
  int32_t row;  // index in rows and spans
  int32_t kv_head;
  int32_t tile;  // of the segment, from 0
  int32_t left;  // tiles of this block's stretch from here on
  RowSpan span;
  AttentionRow info;

  __device__ explicit TileCursor(const Stretch& stretch)
      : row(stretch.row),
        kv_head(stretch.kv_head),
        tile(stretch.tile),
        left(stretch.count),
        span(stretch.span),
        info(stretch.info) {}
  __device__ void next(const Params& params) {
    if (--left <= 0) return;
    if (++tile < span.num_tiles) return;
    tile = 0;
    if (++kv_head < params.args.config.num_kv_heads) return;
    kv_head = 0;
    do {
      span = params.workspace.spans[++row];
    } while (span.num_tiles == 0);
    info = params.args.rows[row];
  }
  // Local token where the tile starts.
  __device__ int32_t first_token() const {
    return (span.token_begin / kTileTokens + tile) * kTileTokens;
  }
};

// One warp's 16 tokens of K and V, and their exponents; in flight in a ring of stages for each
// warp.
template <int kDimension, CacheType kType, int kTiles>
struct Shape {
  static constexpr int kDim = kDimension;
  static constexpr int kHeadTiles = kTiles;  // of 8 query heads
  static constexpr int kHeads = 8 * kTiles;
  using Kv = KvTile<kDim, kType>;
  static constexpr int kExponentsAt = 2 * Kv::kBytes;  // of K, then of V
  static constexpr int kStageBytes = kExponentsAt + (Kv::kIsE4m3 ? 2 * kWarpTokens : 0);
  // Of a block, requested ahead of the products. Measured: more lets multiprocessors near the
  // memory run away from the others, less leaves it idle; small stages need more of them.
  static constexpr int kBytesAhead = (kDim == 64 ? 64 : Kv::kIsE4m3 ? 48 : 32) << 10;
  static constexpr int kStages = 1 + kBytesAhead / (kWarps * 2 * Kv::kBytes);
  static constexpr int kStatsAt = kWarps * kStages * kStageBytes;
  static constexpr int kSumsAt = kStatsAt + kWarps * kHeads * 8 + 16;
  // A row of a warp's results for a tile of heads; the shift keeps writes free of bank conflicts.
  static constexpr int kSumStride = kDim + 4;
  static constexpr int kSharedBytes = kSumsAt + kWarps * 8 * kSumStride * 4;
};

// Where 16 tokens of K (and, at the same distance, of V) lie; none where the shard has no block.
struct TokenPlace {
  int64_t values;     // bytes
  int64_t exponents;  // bytes
  bool exists;
};

template <typename S>
__device__ TokenPlace place_of(const Params& params, const TileCursor& cursor, int32_t token) {
  const AttentionDecodeArgs& args = params.args;
  const auto size = static_cast<uint32_t>(args.config.block_size);
  const uint32_t block = block_of_token(params, token);  // 16 tokens never straddle blocks
  if (static_cast<int32_t>(block) >= cursor.info.num_blocks) return {0, 0, false};
  const uint32_t in_block = static_cast<uint32_t>(token) - block * size;
  const int64_t at =
      args.blocks[cursor.info.block_begin + static_cast<int32_t>(block)] * args.block_stride;
  const int64_t values = at + cursor.kv_head * args.head_stride + in_block * S::kDim;
  const int64_t exponents = at + args.config.num_kv_heads * args.head_stride +
                            cursor.kv_head * static_cast<int32_t>(size) + in_block;
  return {values * S::Kv::kValueBytes, exponents, true};
}

// Asks for this warp's 16 tokens of the cursor's tile. They are read once in a layer: queries,
// tables and parts of segments stay in the second-level cache instead.
template <typename S>
__device__ void fetch_tile(const Params& params, const TileCursor& cursor, uint32_t stage) {
  using Kv = typename S::Kv;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t token = cursor.first_token() + static_cast<int32_t>(threadIdx.x) / 32 * kWarpTokens;
  const TokenPlace place = place_of<S>(params, cursor, token);
  if (!place.exists) return;
  const auto* k = static_cast<const uint8_t*>(params.args.k) + place.values;
  const auto* v = static_cast<const uint8_t*>(params.args.v) + place.values;
  const uint64_t policy = evict_first_policy();
#pragma unroll
  for (int i = 0; i < kWarpTokens * Kv::kChunks / 32; ++i) {
    const int at = i * 32 + lane;
    const int t = at / Kv::kChunks;
    const bool seen = token + t >= cursor.span.token_begin && token + t < cursor.span.token_end;
    const uint32_t to = stage + Kv::chunk_offset(t, at % Kv::kChunks);
    copy_16_async(to, k + at * 16, seen, policy);
    copy_16_async(to + Kv::kBytes, v + at * 16, seen, policy);
  }
  if (Kv::kIsE4m3 && lane < 2) {
    const auto* part = static_cast<const uint8_t*>(lane == 0 ? params.args.k : params.args.v);
    copy_16_async(stage + S::kExponentsAt + lane * kWarpTokens, part + place.exponents, true,
                  policy);
  }
}

// Brings the same into the second-level cache: may be asked for before it has been written.
template <typename S>
__device__ void prefetch_tile(const Params& params, const TileCursor& cursor) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane >= 2) return;
  const int32_t token = cursor.first_token() + static_cast<int32_t>(threadIdx.x) / 32 * kWarpTokens;
  const TokenPlace place = place_of<S>(params, cursor, token);
  if (!place.exists) return;
  const auto* part = static_cast<const uint8_t*>(lane == 0 ? params.args.k : params.args.v);
  prefetch_bulk(part + place.values, S::Kv::kBytes);
}

// The running softmax of one warp: the query heads of a KV head against its share of a segment's
// tokens. A product has tokens (or values) as rows and heads as columns: a thread holds heads
// 2 * (lane % 4) and the next one of each tile of eight.
template <typename S>
struct WarpState {
  using Kv = typename S::Kv;
  static constexpr int kSteps = S::kDim / 16;

  uint32_t q[S::kHeadTiles][kSteps][2];
  float acc[S::kHeadTiles][kSteps][4];
  float row_max[S::kHeadTiles][2];  // base 2
  float row_sum[S::kHeadTiles][2];  // of this thread's tokens only

  __device__ void start(const Params& params, const TileCursor& cursor) {
    const auto* first_head = static_cast<const __nv_bfloat16*>(params.args.q) +
                             (static_cast<int64_t>(cursor.info.row) * params.args.config.num_heads +
                              cursor.kv_head * params.group) *
                                 S::kDim;
#pragma unroll
    for (int tile = 0; tile < S::kHeadTiles; ++tile) {
      const int head = tile * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
      const auto* from = head < params.group ? first_head + head * S::kDim : nullptr;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        Kv::load_query(from, step, q[tile][step]);
        for (float& value : acc[tile][step]) value = 0.0F;
      }
      row_max[tile][0] = row_max[tile][1] = kNothingSeen;
      row_sum[tile][0] = row_sum[tile][1] = 0.0F;
    }
  }

  // `first` is the local token of the warp's first row.
  __device__ void add_tile(const Params& params, const TileCursor& cursor, uint32_t stage,
                           int32_t first) {
    float scores[S::kHeadTiles][4];
    score(stage, scores);
    const bool all_seen =
        first >= cursor.span.token_begin && first + kWarpTokens <= cursor.span.token_end;
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    float value_factor[2] = {1.0F, 1.0F};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float factor = params.scale_log2;
      if constexpr (Kv::kIsE4m3) {
        const uint32_t exponents = stage + S::kExponentsAt + row + 8 * half;
        factor *= power_of_two(load_shared_byte(exponents));
        value_factor[half] = power_of_two(load_shared_byte(exponents + kWarpTokens)) * kCodeFactor;
      }
      const int32_t token = first + row + 8 * half;
      const bool seen =
          all_seen || (token >= cursor.span.token_begin && token < cursor.span.token_end);
      if (!seen) value_factor[half] = 0.0F;  // what lies there may be no exponent
#pragma unroll
      for (int tile = 0; tile < S::kHeadTiles; ++tile) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[tile][i] = seen ? scores[tile][i] * factor : kNothingSeen;
        }
      }
    }
    raise_maxima(scores);
    uint32_t weights[S::kHeadTiles][2];
#pragma unroll
    for (int tile = 0; tile < S::kHeadTiles; ++tile) weigh(tile, scores, value_factor, weights);
    add_values(stage + Kv::kBytes, weights);
  }

  // Two chains of products for each tile of heads, so that they overlap.
  __device__ void score(uint32_t keys, float (&scores)[S::kHeadTiles][4]) const {
    float sums[S::kHeadTiles][2][4] = {};
#pragma unroll
    for (int pair = 0; pair < kSteps / 2; ++pair) {
      uint32_t even[4];
      uint32_t odd[4];
      Kv::load_keys(keys, pair, even, odd);
#pragma unroll
      for (int tile = 0; tile < S::kHeadTiles; ++tile) {
        multiply_add(sums[tile][0], even, q[tile][2 * pair][0], q[tile][2 * pair][1]);
        multiply_add(sums[tile][1], odd, q[tile][2 * pair + 1][0], q[tile][2 * pair + 1][1]);
      }
    }
#pragma unroll
    for (int tile = 0; tile < S::kHeadTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[tile][i] = sums[tile][0][i] + sums[tile][1][i];
    }
  }

  // The same maximum in all threads of a head. Most tiles change none.
  __device__ void raise_maxima(const float (&scores)[S::kHeadTiles][4]) {
    bool rises = false;
#pragma unroll
    for (int tile = 0; tile < S::kHeadTiles; ++tile) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        rises |= fmaxf(scores[tile][h], scores[tile][2 + h]) > row_max[tile][h] + kMaxSlack;
      }
    }
    if (!__any_sync(0xffffffffU, rises)) return;
#pragma unroll
    for (int tile = 0; tile < S::kHeadTiles; ++tile) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float largest = fmaxf(scores[tile][h], scores[tile][2 + h]);
        for (int distance = 4; distance < 32; distance *= 2) {
          largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
        }
        largest = fmaxf(largest, row_max[tile][h]);
        const float rescale = largest == kNothingSeen ? 1.0F : exp2f(row_max[tile][h] - largest);
        row_max[tile][h] = largest;
        row_sum[tile][h] *= rescale;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          acc[tile][step][h] *= rescale;
          acc[tile][step][2 + h] *= rescale;
        }
      }
    }
  }

  // Weights as right operands [tokens x heads].
  __device__ void weigh(int tile, const float (&scores)[S::kHeadTiles][4],
                        const float (&value_factor)[2], uint32_t (&weights)[S::kHeadTiles][2]) {
    float base[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      // A head that has seen nothing keeps -infinity; 0 stands in to avoid inf - inf.
      base[h] = row_max[tile][h] == kNothingSeen ? 0.0F : row_max[tile][h];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float weight[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        weight[h] = power_of_2(scores[tile][2 * half + h] - base[h]);
        row_sum[tile][h] += weight[h];
        if constexpr (Kv::kIsE4m3) weight[h] *= value_factor[half];
      }
      weights[tile][half] = transpose_matrix(pack_bf16(weight[0], weight[1]));
    }
  }

  __device__ void add_values(uint32_t values, const uint32_t (&weights)[S::kHeadTiles][2]) {
#pragma unroll
    for (int n = 0; n < kSteps; n += 2) {
      uint32_t first[4];
      uint32_t second[4];
      Kv::load_values(values, n, first, second);
#pragma unroll
      for (int tile = 0; tile < S::kHeadTiles; ++tile) {
        multiply_add(acc[tile][n], first, weights[tile][0], weights[tile][1]);
        multiply_add(acc[tile][n + 1], second, weights[tile][0], weights[tile][1]);
      }
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
