// Device code of expert_mlp.cu: a product of packed expert weights with the rows of token tiles.
//
// Weights are what takes time. One warp of each block streams them into a ring of shared-memory
// stages by bulk copies, in the order in which they are stored, and runs on across the borders of
// work items, so that the memory is never idle; the ring is longer than what other things take. The
// rows of a token tile lie in shared memory beside it. A work item is 16 weight rows by one token
// tile; its depth is shared out over the multiplying warps, whose sums meet in shared memory, where
// the storing warps add them up. Blocks take equal runs of the list of items.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/expert_mlp.h"
#include "backend/cuda/expert_weight_formats.cuh"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kPieces = 4;  // groups of 8 rows of a token tile at most
constexpr int kMulWarps = 8;
constexpr int kMulThreads = 32 * kMulWarps;
constexpr int kStoreWarps = kPieces;
constexpr int kStreamThread = kMulThreads + 32 * kStoreWarps;  // first of the last warp
constexpr int kMlpThreads = kStreamThread + 32;
constexpr int kRowPad = 8;  // values between the rows of a token tile, against bank conflicts
constexpr int kStagesMax = 14;
constexpr int kBarrierBytes = 256;
constexpr int kSumsWrittenAt = kStagesMax * 16;
constexpr int kSumsReadAt = kSumsWrittenAt + 8;
constexpr int kSumsOfPiece = kMulWarps * 32 * 16;  // bytes
// Items of a block: runs longer than this are cut, so that blocks that work at the same time share
// weights in the second-level cache.
constexpr int kLongRun = 128;
constexpr int kShortRun = 48;

// A stage takes 8 to 17 KiB.
__host__ __device__ constexpr int32_t stage_pairs_max(WeightFormat format) {
  return format == WeightFormat::kBf16 ? 16 : 32;
}

enum class Half { kGateUp, kDown };

// Weights of all experts, packed.
struct MatrixParams {
  const uint8_t* data;  // [experts][row tiles][depth pairs][pair_bytes]
  int32_t row_tiles;    // of 16 weight rows, of one expert
  int32_t depth_pairs;  // of 32 columns
  int32_t pair_bytes;
};

struct ProductParams {
  MatrixParams weights;
  const float* bias;  // kGateUp: [experts][2][out_values], kDown: [experts][out_values]; or null
  ExpertLists lists;
  const __nv_bfloat16* in;  // rows of `depth` values
  __nv_bfloat16* out;       // [assignments, out_values]
  int32_t stage_pairs;
  int32_t stages;   // of the ring
  int32_t rows_at;  // in shared memory
  int32_t ring_at;
  int32_t out_values;
  bool by_row_id;  // `in` is indexed by row id, else by assignment
  bool clamped;    // activation
};

// The items of this block, in order: one run of each round.
struct ItemCursor {
  int32_t tile;
  int32_t row_tile;
  int32_t left = 0;  // items of the run
  int32_t row_tiles;
  int32_t num_items;
  int32_t round_items;
  int32_t next_round = 0;  // first item of it

  __device__ ItemCursor(int32_t num_tiles, int32_t num_row_tiles) : row_tiles(num_row_tiles) {
    const auto blocks = static_cast<int32_t>(gridDim.x);
    num_items = num_tiles * row_tiles;
    round_items = num_items <= blocks * kLongRun ? num_items : blocks * kShortRun;
    start_rounds();
  }
  __device__ bool done() const { return left == 0; }
  __device__ bool is_single_round() const { return round_items == num_items; }
  __device__ void next() {
    if (++row_tile == row_tiles) {
      row_tile = 0;
      ++tile;
    }
    if (--left == 0) start_rounds();
  }
  __device__ void start_rounds() {
    while (left == 0 && next_round < num_items) {
      const auto blocks = static_cast<int32_t>(gridDim.x);
      const auto block = static_cast<int32_t>(blockIdx.x);
      const int32_t count = min(round_items, num_items - next_round);
      const int32_t each = count / blocks;
      const int32_t more = count - each * blocks;  // blocks that take one more
      const int32_t begin = next_round + block * each + min(block, more);
      left = each + (block < more ? 1 : 0);
      tile = begin / row_tiles;
      row_tile = begin - tile * row_tiles;
      next_round += count;
    }
  }
};

struct RingPlace {
  int32_t slot = 0;
  uint32_t parity = 0;

  __device__ void next(int32_t stages) {
    if (++slot < stages) return;
    slot = 0;
    parity ^= 1U;
  }
};

// Barriers of stage s: its bytes have landed at base + 16 * s, all have read them at + 8.
__device__ inline uint32_t landed(uint32_t barriers, int32_t slot) {
  return barriers + static_cast<uint32_t>(slot) * 16;
}
__device__ inline uint32_t consumed(uint32_t barriers, int32_t slot) {
  return barriers + static_cast<uint32_t>(slot) * 16 + 8;
}

__device__ inline TokenTile load_tile(const ProductParams& p, int32_t index) {
  const int4 words = __ldcg(reinterpret_cast<const int4*>(p.lists.tiles) + index);
  return {words.x, words.y, words.z, words.w};
}

__device__ inline const uint8_t* weights_of(const MatrixParams& matrix, int32_t expert,
                                            int32_t row_tile) {
  return matrix.data + (static_cast<int64_t>(expert) * matrix.row_tiles + row_tile) *
                           matrix.depth_pairs * matrix.pair_bytes;
}

// One thread.
__device__ inline void stream_weights(const ProductParams& p, uint32_t barriers, uint32_t ring) {
  RingPlace place;
  int32_t tile_at = -1;
  int32_t expert = 0;
  ItemCursor cursor(__ldcg(p.lists.num_tiles), p.weights.row_tiles);
  // Weights that are read once leave the rows and results in the second-level cache.
  const uint64_t policy = cursor.is_single_round() ? evict_first_policy() : evict_normal_policy();
  for (; !cursor.done(); cursor.next()) {
    if (cursor.tile != tile_at) expert = load_tile(p, cursor.tile).expert;
    tile_at = cursor.tile;
    const uint8_t* from = weights_of(p.weights, expert, cursor.row_tile);
    for (int32_t pair = 0; pair < p.weights.depth_pairs; pair += p.stage_pairs) {
      const auto bytes = static_cast<uint32_t>(min(p.stage_pairs, p.weights.depth_pairs - pair) *
                                               p.weights.pair_bytes);
      wait_phase(consumed(barriers, place.slot), place.parity ^ 1U);
      arrive_expecting(landed(barriers, place.slot), bytes);
      copy_bulk(ring + static_cast<uint32_t>(place.slot * p.stage_pairs * p.weights.pair_bytes),
                from + static_cast<int64_t>(pair) * p.weights.pair_bytes, bytes,
                landed(barriers, place.slot), policy);
      place.next(p.stages);
    }
  }
}

// Of the multiplying warps.
__device__ inline void warps_barrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(kMulThreads) : "memory");
}

// A token tile and which of its rows this warp fetches; asked for long before they are needed.
struct TileRows {
  static constexpr int kCount = kPieces * 8 / kMulWarps;
  TokenTile tile;
  int32_t from[kCount];  // rows of `in`: those of the tile that are this warp's, every kMulWarps-th

  __device__ void load(const ProductParams& p, int32_t index, int32_t num_tiles) {
    if (index >= num_tiles) return;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    tile = load_tile(p, index);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int32_t row = warp + i * kMulWarps;
      from[i] = tile.begin + (row < tile.count ? row : 0);
      if (p.by_row_id) from[i] = __ldcg(p.lists.row_of + from[i]);
    }
  }
};

// Copies the rows of a token tile to shared memory; rows that fill up a piece become zeros.
__device__ inline void fetch_rows(const ProductParams& p, const TileRows& next, uint32_t rows) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t depth = p.weights.depth_pairs * 32;
  const int32_t padded = (next.tile.count + 7) / 8 * 8;
#pragma unroll
  for (int i = 0; i < TileRows::kCount; ++i) {
    const int32_t row = warp + i * kMulWarps;
    if (row >= padded) break;
    const __nv_bfloat16* values = p.in + static_cast<int64_t>(next.from[i]) * depth;
    const uint32_t to = rows + static_cast<uint32_t>(row * (depth + kRowPad) * 2);
#pragma unroll 4
    for (int32_t chunk = lane; chunk < depth / 8; chunk += 32) {
      copy_16_async(to + static_cast<uint32_t>(chunk) * 16, values + chunk * 8,
                    row < next.tile.count);
    }
  }
  commit_copies();
  wait_copies<0>();
  warps_barrier();
}

// acc += scales x weights x rows for one pair and kCount groups of 8 rows; `rows` is where this
// lane's matrix row begins.
template <WeightFormat kFormat, int kCount>
__device__ inline void multiply_pair(const WeightPair& pair, uint32_t rows, int32_t group_stride,
                                     float (&acc)[kPieces][4]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    uint32_t b[4];
    load_matrices(b, rows + static_cast<uint32_t>(n * group_stride));
    if constexpr (kFormat == WeightFormat::kBf16) {
      multiply_add(acc[n], pair.low, b[0], b[1]);
      multiply_add(acc[n], pair.high, b[2], b[3]);
    } else {
      float sums[4] = {};
      multiply_add(sums, pair.low, b[0], b[1]);
      multiply_add(sums, pair.high, b[2], b[3]);
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[n][i] += pair.scales[i / 2] * sums[i];
    }
  }
}

// acc += this warp's weights x rows for kCount groups of 8 rows.
template <WeightFormat kFormat, int kCount>
__device__ inline void multiply_item(const ProductParams& p, uint32_t barriers, uint32_t rows,
                                     uint32_t ring, RingPlace& place, float (&acc)[kPieces][4]) {
  constexpr int32_t kPairBytes = pair_bytes(kFormat);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t stride = (p.weights.depth_pairs * 32 + kRowPad) * 2;
  // Lanes name rows of four 8x8 matrices: both halves of two operands.
  const uint32_t first_row = rows + static_cast<uint32_t>((lane % 8) * stride + (lane / 8) * 16);
  for (int32_t begin = 0; begin < p.weights.depth_pairs; begin += p.stage_pairs) {
    const uint32_t stage = ring + static_cast<uint32_t>(place.slot * p.stage_pairs * kPairBytes);
    const int32_t count = min(p.stage_pairs, p.weights.depth_pairs - begin);
    wait_phase(landed(barriers, place.slot), place.parity);
#pragma unroll
    for (int j = 0; j < stage_pairs_max(kFormat) / kMulWarps; ++j) {
      const int32_t at = warp + j * kMulWarps;
      if (at >= count) break;
      WeightPair pair;
      load_pair<kFormat>(stage + static_cast<uint32_t>(at * kPairBytes), lane, pair);
      multiply_pair<kFormat, kCount>(pair, first_row + static_cast<uint32_t>((begin + at) * 64),
                                     8 * stride, acc);
    }
    __syncwarp();
    if (lane == 0) arrive(consumed(barriers, place.slot));
    place.next(p.stages);
  }
}

__device__ inline float activate(float gate, float up, bool clamped) {
  if (!clamped) return gate / (1.0F + __expf(-gate)) * up;
  gate = fminf(gate, 7.0F);  // gpt-oss: swiglu_limit, alpha 1.702
  up = fminf(fmaxf(up, -7.0F), 7.0F);
  return (up + 1.0F) * gate / (1.0F + __expf(-1.702F * gate));
}

// The item's value of a weight row and a token of a piece; `sums` is where the piece's sums begin.
__device__ inline float add_warps(const float* sums, int32_t row, int32_t token) {
  const float* at = sums + ((row % 8) * 4 + token / 2) * 4 + row / 8 * 2 + token % 2;
  float total = 0.0F;
#pragma unroll
  for (int warp = 0; warp < kMulWarps; ++warp) total += at[warp * 32 * 4];
  return total;
}

// This thread's part of a piece: two values of gate and two of up, or four of down. Four adjacent
// lanes write 8 or 16 adjacent values of a token.
template <Half kHalf>
__device__ inline void store_values(const ProductParams& p, const TokenTile& tile, int32_t row_tile,
                                    int32_t token, float (&values)[4]) {
  if (token >= tile.count) return;
  const int32_t part = static_cast<int32_t>(threadIdx.x) % 4;
  __nv_bfloat16* out = p.out + static_cast<int64_t>(tile.begin + token) * p.out_values;
  if constexpr (kHalf == Half::kGateUp) {
    const int32_t feature = row_tile * 8 + part * 2;
    if (p.bias != nullptr) {
      const float* bias = p.bias + static_cast<int64_t>(tile.expert) * 2 * p.out_values + feature;
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] += bias[i / 2 * p.out_values + i % 2];
    }
    *reinterpret_cast<uint32_t*>(out + feature) = pack_bf16(
        activate(values[0], values[2], p.clamped), activate(values[1], values[3], p.clamped));
  } else {
    const int32_t row = row_tile * 16 + part * 4;
    if (p.bias != nullptr) {
      const float* bias = p.bias + static_cast<int64_t>(tile.expert) * p.out_values + row;
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] += bias[i];
    }
    *reinterpret_cast<uint2*>(out + row) =
        make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
  }
}

// Adds up the multiplying warps' sums and stores the results. A warp for each piece.
template <Half kHalf>
__device__ inline void store_items(const ProductParams& p, uint32_t barriers, const float* sums) {
  const int32_t piece = static_cast<int32_t>(threadIdx.x - kMulThreads) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t part = lane % 4;
  const int32_t token = lane / 4;
  sums += piece * (kSumsOfPiece / 4);
  const int32_t num_tiles = __ldcg(p.lists.num_tiles);
  ItemCursor cursor(num_tiles, p.weights.row_tiles);
  int32_t tile_at = -1;
  TokenTile tile = {};
  for (uint32_t parity = 0; !cursor.done(); cursor.next(), parity ^= 1U) {
    if (cursor.tile != tile_at) tile = load_tile(p, cursor.tile);
    tile_at = cursor.tile;
    wait_phase(barriers + kSumsWrittenAt, parity);
    float values[4];
    if (piece * 8 < tile.count) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t row = kHalf == Half::kGateUp ? i / 2 * 8 + part * 2 + i % 2 : part * 4 + i;
        values[i] = add_warps(sums, row, token);
      }
    }
    __syncwarp();
    if (lane == 0) arrive(barriers + kSumsReadAt);
    if (piece * 8 < tile.count) {
      store_values<kHalf>(p, tile, cursor.row_tile, piece * 8 + token, values);
    }
  }
}

// Hands this warp's sums of an item to the storing warps.
__device__ inline void write_sums(uint32_t barriers, uint32_t parity, int32_t num_pieces,
                                  const float (&acc)[kPieces][4], float4* sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  wait_phase(barriers + kSumsReadAt, parity ^ 1U);
#pragma unroll
  for (int n = 0; n < kPieces; ++n) {
    if (n < num_pieces) {
      sums[(n * kMulWarps + warp) * 32 + lane] =
          make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
    }
  }
  __syncwarp();
  if (lane == 0) arrive(barriers + kSumsWrittenAt);
}

template <Half kHalf, WeightFormat kFormat>
__device__ inline void multiply_items(const ProductParams& p, uint32_t barriers, float4* sums,
                                      uint32_t rows, uint32_t ring) {
  RingPlace place;
  const int32_t num_tiles = __ldcg(p.lists.num_tiles);
  ItemCursor cursor(num_tiles, p.weights.row_tiles);
  int32_t tile_at = -1;
  int32_t num_pieces = 0;
  TileRows next = {};
  if (!cursor.done()) next.load(p, cursor.tile, num_tiles);
  if (kHalf == Half::kDown) cudaGridDependencySynchronize();
  for (uint32_t parity = 0; !cursor.done(); cursor.next(), parity ^= 1U) {
    if (cursor.tile != tile_at) {
      if (tile_at >= 0) {
        warps_barrier();  // all have read the last tile's rows
        if (cursor.tile != tile_at + 1) next.load(p, cursor.tile, num_tiles);
      }
      fetch_rows(p, next, rows);
      num_pieces = (next.tile.count + 7) / 8;
      tile_at = cursor.tile;
      next.load(p, tile_at + 1, num_tiles);
    }
    float acc[kPieces][4] = {};
    switch (num_pieces) {
      case 1:
        multiply_item<kFormat, 1>(p, barriers, rows, ring, place, acc);
        break;
      case 2:
        multiply_item<kFormat, 2>(p, barriers, rows, ring, place, acc);
        break;
      case 3:
        multiply_item<kFormat, 3>(p, barriers, rows, ring, place, acc);
        break;
      default:
        multiply_item<kFormat, 4>(p, barriers, rows, ring, place, acc);
        break;
    }
    write_sums(barriers, parity, num_pieces, acc, sums);
  }
}

template <Half kHalf, WeightFormat kFormat>
__global__ void __launch_bounds__(kMlpThreads, 1)
    product_kernel(const __grid_constant__ ProductParams p) {
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t barriers = shared_address(shared);
  auto* sums = reinterpret_cast<float4*>(shared + kBarrierBytes);
  if (threadIdx.x == 0) {
    for (int32_t slot = 0; slot < p.stages; ++slot) {
      init_barrier(landed(barriers, slot), 1);
      init_barrier(consumed(barriers, slot), kMulWarps);
    }
    init_barrier(barriers + kSumsWrittenAt, kMulWarps);
    init_barrier(barriers + kSumsReadAt, kStoreWarps);
    publish_barriers();
  }
  __syncthreads();
  // The second product begins to stream before the first has ended: its weights and lists do not
  // depend on it. The first lets it begin only when it has seen the lists itself.
  if (kHalf == Half::kGateUp) cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const uint32_t ring = barriers + static_cast<uint32_t>(p.ring_at);
  if (threadIdx.x < kMulThreads) {
    multiply_items<kHalf, kFormat>(p, barriers, sums, barriers + static_cast<uint32_t>(p.rows_at),
                                   ring);
  } else if (threadIdx.x < kStreamThread) {
    store_items<kHalf>(p, barriers, reinterpret_cast<const float*>(sums));
  } else if (threadIdx.x == kStreamThread) {
    stream_weights(p, barriers, ring);
  }
}

}  // namespace
}  // namespace nanocp::cuda
