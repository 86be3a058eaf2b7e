// Device code of expert_mlp.cu: a product of packed expert weights with the rows of token tiles.
//
// Weights are what takes time, so they go straight from memory into registers, in the order in
// which they are stored: each warp keeps kAhead tiles of 512 bytes on their way at any time, also
// across the borders of work items. The rows of a token tile lie in shared memory. A work item is
// 16 x (warps / k_warps) weight rows by one token tile; its depth is shared out over k_warps warps,
// whose sums meet in shared memory. Blocks take equal runs of the list of items.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/expert_mlp.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kMlpWarps = 16;
constexpr int kMlpThreads = 32 * kMlpWarps;
constexpr int kAhead = 8;       // weight tiles on their way to each warp
constexpr int kPieces = 4;      // groups of 8 rows of a token tile at most
constexpr int kRowPad = 8;      // values between the rows of a token tile, against bank conflicts
constexpr int kTileLanes = 32;  // 16-byte pieces of a weight tile

enum class Half { kGateUp, kDown };

struct ProductParams {
  const uint4* weights;  // [experts][row tiles][depth tiles][32]
  const float* bias;     // kGateUp: [experts][2][out_values], kDown: [experts][out_values]; or null
  ExpertLists lists;
  const __nv_bfloat16* in;  // rows of `depth` values
  __nv_bfloat16* out;       // [assignments, out_values]
  int32_t row_tiles;        // of 16 weight rows, of one expert
  int32_t depth_tiles;      // of 16 columns
  int32_t k_warps;          // warps that share the depth, divides kMlpWarps
  int32_t steps;            // depth tiles of a warp at most
  int32_t out_values;
  bool by_row_id;  // `in` is indexed by row id, else by assignment
  bool clamped;    // activation
};

// One item: `row_group` of the expert's weight rows against a token tile.
struct Item {
  int32_t tile;
  int32_t row_group;
};

__device__ inline uint4 load_weights(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// Where this warp's weights of an item lie.
struct WarpSource {
  const uint4* base;  // this lane's piece of the first tile
  int32_t count;      // tiles
};

__device__ inline WarpSource warp_source(const ProductParams& p, const Item& item, int32_t expert) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t row_tile = item.row_group * (kMlpWarps / p.k_warps) + warp / p.k_warps;
  const int32_t begin = warp % p.k_warps * p.steps;
  const int32_t count = row_tile < p.row_tiles ? min(p.steps, p.depth_tiles - begin) : 0;
  const int64_t tile =
      (static_cast<int64_t>(expert) * p.row_tiles + row_tile) * p.depth_tiles + begin;
  return {p.weights + tile * kTileLanes + lane, max(count, 0)};
}

// Copies the rows of a token tile to shared memory; rows that do not exist become zeros.
__device__ inline void fetch_rows(const ProductParams& p, const TokenTile& tile,
                                  __nv_bfloat16* rows) {
  const int32_t depth = p.depth_tiles * 16;
  const int32_t chunks = depth / 8;
  const int32_t padded = (tile.count + 7) / 8 * 8;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < padded * chunks; i += kMlpThreads) {
    const int32_t row = i / chunks;
    const int32_t chunk = i % chunks;
    const bool exists = row < tile.count;
    const int32_t assignment = tile.begin + (exists ? row : 0);
    const int64_t from = p.by_row_id ? p.lists.row_of[assignment] : assignment;
    copy_16_async(shared_address(rows + row * (depth + kRowPad) + chunk * 8),
                  p.in + from * depth + chunk * 8, exists);
  }
  commit_copies();
  wait_copies<0>();
}

// acc += this warp's weights x rows for kCount groups of 8 rows, while the weights of what follows
// are asked for.
template <int kCount>
__device__ inline void multiply_item(const ProductParams& p, const WarpSource& source,
                                     const WarpSource& next, const __nv_bfloat16* rows,
                                     uint4 (&ahead)[kAhead], float (&acc)[kPieces][4]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t stride = p.depth_tiles * 16 + kRowPad;
  // Lanes name rows of four 8x8 matrices: both halves of two depth tiles.
  const uint32_t first_row =
      shared_address(rows + (lane % 8) * stride + (lane / 8) * 8 + warp % p.k_warps * p.steps * 16);
  const int32_t chunks = (p.steps + kAhead - 1) / kAhead;
  for (int32_t chunk = 0; chunk < chunks; ++chunk) {
    const bool last = chunk + 1 == chunks;
    const uint4* from = last ? next.base : source.base + (chunk + 1) * kAhead * kTileLanes;
    const int32_t num_next = last ? next.count : source.count - (chunk + 1) * kAhead;
    const int32_t num_here = source.count - chunk * kAhead;
    uint32_t b[kCount][4];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (j < num_here) {
        if (j % 2 == 0) {
#pragma unroll
          for (int n = 0; n < kCount; ++n) {
            load_matrices(b[n], first_row + static_cast<uint32_t>(
                                                (n * 8 * stride + (chunk * kAhead + j) * 16) * 2));
          }
        }
        const uint32_t a[4] = {ahead[j].x, ahead[j].y, ahead[j].z, ahead[j].w};
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          multiply_add(acc[n], a, b[n][(j % 2) * 2], b[n][(j % 2) * 2 + 1]);
        }
      }
      if (j < num_next) ahead[j] = load_weights(from + j * kTileLanes);
    }
  }
}

__device__ inline float activate(float gate, float up, bool clamped) {
  if (!clamped) return gate / (1.0F + __expf(-gate)) * up;
  gate = fminf(gate, 7.0F);  // gpt-oss: swiglu_limit, alpha 1.702
  up = fminf(fmaxf(up, -7.0F), 7.0F);
  return (up + 1.0F) * gate / (1.0F + __expf(-1.702F * gate));
}

// One thread's four sums: rows lane / 4 and lane / 4 + 8 of the row tile, tokens 2 * (lane % 4) and
// the next.
template <Half kHalf>
__device__ inline void store_sums(const ProductParams& p, const TokenTile& tile, int32_t row_tile,
                                  int32_t piece, int lane, const float4& sums) {
  const float values[4] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int32_t token = piece * 8 + lane % 4 * 2 + i;
    if (token >= tile.count) continue;
    __nv_bfloat16* out = p.out + static_cast<int64_t>(tile.begin + token) * p.out_values;
    if constexpr (kHalf == Half::kGateUp) {
      const int32_t feature = row_tile * 8 + lane / 4;
      float gate = values[i];
      float up = values[2 + i];
      if (p.bias != nullptr) {
        const float* bias = p.bias + static_cast<int64_t>(tile.expert) * 2 * p.out_values;
        gate += bias[feature];
        up += bias[p.out_values + feature];
      }
      out[feature] = __float2bfloat16(activate(gate, up, p.clamped));
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int32_t row = row_tile * 16 + half * 8 + lane / 4;
        const float bias = p.bias == nullptr
                               ? 0.0F
                               : p.bias[static_cast<int64_t>(tile.expert) * p.out_values + row];
        out[row] = __float2bfloat16(values[2 * half + i] + bias);
      }
    }
  }
}

// Adds up the warps that shared an item's depth and stores the results. `sums` is used by every
// second item only, so that one barrier is enough.
template <Half kHalf>
__device__ inline void finish_item(const ProductParams& p, const Item& item, const TokenTile& tile,
                                   int32_t num_pieces, const float (&acc)[kPieces][4],
                                   float4* sums) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kPieces; ++n) {
    if (n < num_pieces) {
      sums[(n * kMlpWarps + warp) * 32 + lane] =
          make_float4(acc[n][0], acc[n][1], acc[n][2], acc[n][3]);
    }
  }
  __syncthreads();
  const int32_t groups = kMlpWarps / p.k_warps;
  for (int32_t at = warp; at < groups * num_pieces; at += kMlpWarps) {
    const int32_t group = at % groups;
    const int32_t piece = at / groups;
    const int32_t row_tile = item.row_group * groups + group;
    if (row_tile >= p.row_tiles) continue;
    float4 total = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    for (int32_t k = 0; k < p.k_warps; ++k) {
      const float4 part = sums[(piece * kMlpWarps + group * p.k_warps + k) * 32 + lane];
      total.x += part.x;
      total.y += part.y;
      total.z += part.z;
      total.w += part.w;
    }
    store_sums<kHalf>(p, tile, row_tile, piece, lane, total);
  }
}

template <Half kHalf>
__global__ void __launch_bounds__(kMlpThreads, 1)
    product_kernel(const __grid_constant__ ProductParams p) {
  extern __shared__ __align__(128) uint8_t shared[];
  auto* sums = reinterpret_cast<float4*>(shared);  // two of [kPieces][kMlpWarps][32]
  auto* rows = reinterpret_cast<__nv_bfloat16*>(shared + 2 * kPieces * kMlpWarps * 32 * 16);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t row_groups = (p.row_tiles * p.k_warps + kMlpWarps - 1) / kMlpWarps;
  const int64_t num_items = static_cast<int64_t>(*p.lists.num_tiles) * row_groups;
  const int64_t begin = num_items * blockIdx.x / gridDim.x;
  const int64_t end = num_items * (blockIdx.x + 1) / gridDim.x;
  if (begin == end) return;

  const auto item_at = [&](int64_t index) {
    return Item{static_cast<int32_t>(index / row_groups), static_cast<int32_t>(index % row_groups)};
  };
  Item item = item_at(begin);
  TokenTile tile = p.lists.tiles[item.tile];
  WarpSource source = warp_source(p, item, tile.expert);
  uint4 ahead[kAhead] = {};
#pragma unroll
  for (int j = 0; j < kAhead; ++j) {
    if (j < source.count) ahead[j] = load_weights(source.base + j * kTileLanes);
  }
  fetch_rows(p, tile, rows);
  __syncthreads();
  for (int64_t index = begin; index < end; ++index) {
    Item next = item;
    TokenTile next_tile = tile;
    WarpSource next_source = {source.base, 0};
    if (index + 1 < end) {
      next = item_at(index + 1);
      if (next.tile != item.tile) next_tile = p.lists.tiles[next.tile];
      next_source = warp_source(p, next, next_tile.expert);
    }
    float acc[kPieces][4] = {};
    const int32_t num_pieces = (tile.count + 7) / 8;
    if (num_pieces == 1) {
      multiply_item<1>(p, source, next_source, rows, ahead, acc);
    } else if (num_pieces == 2) {
      multiply_item<2>(p, source, next_source, rows, ahead, acc);
    } else {
      multiply_item<kPieces>(p, source, next_source, rows, ahead, acc);
    }
    finish_item<kHalf>(p, item, tile, num_pieces, acc,
                       sums + (index % 2) * kPieces * kMlpWarps * 32);
    if (next.tile != item.tile) {  // all warps have left the rows: finish_item has a barrier
      fetch_rows(p, next_tile, rows);
      __syncthreads();
    }
    item = next;
    tile = next_tile;
    source = next_source;
  }
}

}  // namespace
}  // namespace nanocp::cuda
