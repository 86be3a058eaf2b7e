// One kernel of a fixed grid. Its blocks go round the tiles of all items: 128 rows of a product,
// which are the tokens of a chunk times the query heads of one KV head, against all KV tokens that
// any of them sees, 64 at a time. Warps own 16 rows each and keep a running softmax; the KV of the
// next 64 tokens is copied to shared memory meanwhile.
#include "backend/cuda/attention_prefill.h"

#include <climits>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/block_search.cuh"
#include "backend/cuda/device/e4m3.cuh"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 16 * kWarps;  // of a tile's product
constexpr int kColumns = 64;        // KV tokens at a time
constexpr int kStages = 2;
constexpr int kBlocksPerSm = 1;
constexpr int kGroupMax = 16;
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;

struct Params {
  AttentionPrefillArgs args;
  int32_t group;        // query heads per KV head
  int32_t tile_tokens;  // of a chunk
  float scale_log2;
};

// Some tokens of a chunk, one KV head, and the local KV tokens [begin, end) that any of them sees.
struct Tile {
  PrefillItem item;
  int32_t first;  // token of the item
  int32_t count;  // tokens
  int32_t kv_head;
  int32_t begin;
  int32_t end;

  __device__ int32_t first_position() const { return item.first_position + first; }
  __device__ int32_t last_position() const { return item.first_position + first + count - 1; }
};

// The tile at `index` of all items' tiles; later tokens of an item first, since they see more.
__device__ bool find_tile(const Params& params, int32_t index, Tile* tile) {
  const int32_t heads = params.args.config.num_kv_heads;
  const int32_t num_items = *params.args.num_items;
  for (int32_t i = 0; i < num_items; ++i) {
    const PrefillItem item = params.args.items[i];
    const int32_t num_tiles = (item.num_rows + params.tile_tokens - 1) / params.tile_tokens;
    if (index < num_tiles * heads) {
      tile->item = item;
      tile->first = (num_tiles - 1 - index / heads) * params.tile_tokens;
      tile->count = min(params.tile_tokens, item.num_rows - tile->first);
      tile->kv_head = index % heads;
      return true;
    }
    index -= num_tiles * heads;
  }
  return false;
}

// Whole blocks; single tokens are hidden by position.
__device__ void find_range(const Params& params, Tile* tile) {
  const int32_t size = params.args.config.block_size;
  const int32_t window = params.args.config.sliding_window;
  const int32_t first_seen = window > 0 ? max(0, tile->first_position() - window + 1) : 0;
  const int32_t* idx = params.args.block_idx + tile->item.block_begin;
  const int32_t count = tile->item.num_blocks;
  tile->end = find_block(idx, count, tile->last_position() / size + 1) * size;
  tile->begin = find_block(idx, count, first_seen / size) * size / kColumns * kColumns;
}

template <int kDim>
struct SharedLayout {
  static constexpr int kTileBytes = kColumns * kDim * 2;
  static constexpr int kStageBytes = 2 * kTileBytes;  // K and V
  static constexpr int kPositionsAt = kStages * kStageBytes;
  static constexpr int kTotalBytes = kPositionsAt + kStages * kColumns * 4;
};

// 16-byte chunks are permuted so that matrix loads meet no bank conflicts.
template <int kDim>
__device__ inline uint32_t chunk_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * kDim * 2 + ((chunk ^ (row & 7)) * 16));
}

// A token's K and V in the cache, in elements, and its position; after all rows where the shard has
// no such token.
struct TokenPlace {
  int64_t values;
  int64_t exponent;  // kE4m3
  int32_t position;
};

template <int kDim>
__device__ TokenPlace place_of(const Params& params, const Tile& tile, int32_t token) {
  const AttentionPrefillArgs& args = params.args;
  const int32_t size = args.config.block_size;
  if (token >= tile.end) return {0, 0, INT_MAX};
  const int32_t entry = tile.item.block_begin + token / size;
  const int64_t block = args.blocks[entry] * args.block_stride;
  const int32_t in_block = token % size;
  return {block + tile.kv_head * args.head_stride + static_cast<int64_t>(in_block) * kDim,
          block + args.config.num_kv_heads * args.head_stride + tile.kv_head * size + in_block,
          args.block_idx[entry] * size + in_block};
}

// The copies of 64 tokens' K and V from local token `from` on to a stage of shared memory, and of
// their positions. What no row of the tile sees is zero. `ask` begins them, `land` ends them: the
// stage must not be read from ask to land, nor before the next barrier.
template <int kDim, CacheType kType>
struct ColumnCopy {
  __device__ void ask(const Params& params, const Tile& tile, int32_t from, int stage,
                      uint8_t* shared) {
    using Layout = SharedLayout<kDim>;
    constexpr int kChunks = kDim / 8;
    auto* positions = reinterpret_cast<int32_t*>(shared + Layout::kPositionsAt) + stage * kColumns;
    const uint32_t to = shared_address(shared) + stage * Layout::kStageBytes;
#pragma unroll
    for (int i = 0; i < kColumns * kChunks / kThreads; ++i) {
      const int at = i * kThreads + static_cast<int>(threadIdx.x);
      const int column = at / kChunks;
      const int chunk = at % kChunks;
      const TokenPlace place = place_of<kDim>(params, tile, from + column);
      const bool seen = place.position <= tile.last_position();
      const int64_t offset = place.values + chunk * 8;
      const uint32_t slot = to + chunk_offset<kDim>(column, chunk);
      copy_16_async(slot, static_cast<const __nv_bfloat16*>(params.args.k) + offset, seen);
      copy_16_async(slot + Layout::kTileBytes,
                    static_cast<const __nv_bfloat16*>(params.args.v) + offset, seen);
      if (chunk == 0) positions[column] = place.position;
    }
  }
  // Lets `kPending` later requests go on.
  template <int kPending>
  __device__ void land(int /*stage*/, uint8_t* /*shared*/) {
    wait_copies<kPending>();
  }
};

// Codes wait in registers and are stored as bf16, so that each is converted once for all warps.
template <int kDim>
struct ColumnCopy<kDim, CacheType::kE4m3> {
  static constexpr int kChunks = kDim / 16;  // of 16 codes
  static constexpr int kCount = kColumns * kChunks / kThreads;

  uint4 codes[2][kCount];  // of K, V
  uint32_t exponents[2][kCount];

  __device__ void ask(const Params& params, const Tile& tile, int32_t from, int stage,
                      uint8_t* shared) {
    auto* positions =
        reinterpret_cast<int32_t*>(shared + SharedLayout<kDim>::kPositionsAt) + stage * kColumns;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = i * kThreads + static_cast<int>(threadIdx.x);
      const TokenPlace place = place_of<kDim>(params, tile, from + at / kChunks);
      const bool seen = place.position <= tile.last_position();
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const auto* cache = static_cast<const uint8_t*>(part == 0 ? params.args.k : params.args.v);
        codes[part][i] = make_uint4(0, 0, 0, 0);
        exponents[part][i] = 1;
        if (!seen) continue;
        const auto* from_cache =
            reinterpret_cast<const uint4*>(cache + place.values + at % kChunks * 16);
        codes[part][i] = *from_cache;
        exponents[part][i] = cache[place.exponent];
      }
      if (at % kChunks == 0) positions[at / kChunks] = place.position;
    }
  }

  template <int kPending>
  __device__ void land(int stage, uint8_t* shared) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int at = i * kThreads + static_cast<int>(threadIdx.x);
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        uint8_t* to = shared + stage * SharedLayout<kDim>::kStageBytes +
                      part * SharedLayout<kDim>::kTileBytes;
        const uint32_t words[4] = {codes[part][i].x, codes[part][i].y, codes[part][i].z,
                                   codes[part][i].w};
        uint32_t pairs[8];
#pragma unroll
        for (int w = 0; w < 8; ++w) {
          const uint32_t bytes = __byte_perm(words[w / 2], 0, w % 2 == 0 ? 0x1404 : 0x3424);
          pairs[w] = scale_codes(odd_codes(bytes), exponents[part][i]);
        }
        const int chunk = 2 * (at % kChunks);
        *reinterpret_cast<uint4*>(to + chunk_offset<kDim>(at / kChunks, chunk)) =
            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        *reinterpret_cast<uint4*>(to + chunk_offset<kDim>(at / kChunks, chunk + 1)) =
            make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
      }
    }
  }
};

// 16 rows of a warp and their running softmax. A thread holds rows lane / 4 and lane / 4 + 8.
template <int kDim>
struct WarpState {
  uint32_t q[kDim / 16][4];
  float acc[kDim / 8][4];
  float row_max[2];  // base 2
  float row_sum[2];  // of this thread's columns only
  int32_t position[2];
  int64_t result[2];  // index of (row, head); -1: a padding row

  __device__ void start(const Params& params, const Tile& tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int first_row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
    const auto* queries = static_cast<const __nv_bfloat16*>(params.args.q);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t token = (first_row + half * 8) / params.group;
      const int32_t head = (first_row + half * 8) % params.group;
      position[half] = tile.first_position() + token;
      result[half] = token < tile.count
                         ? static_cast<int64_t>(tile.item.row_begin + tile.first + token) *
                                   params.args.config.num_heads +
                               tile.kv_head * params.group + head
                         : -1;
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int col = step * 16 + part * 8 + (lane % 4) * 2;
          q[step][2 * part + half] =
              result[half] >= 0
                  ? *reinterpret_cast<const uint32_t*>(queries + result[half] * kDim + col)
                  : 0U;
        }
      }
      row_max[half] = kNothingSeen;
      row_sum[half] = 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      for (float& value : acc[i]) value = 0.0F;
    }
  }

  __device__ void score(uint32_t k_tile, float (&scores)[kColumns / 8][4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int token = lane % 8 + (lane / 16) * 8;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kColumns / 16; ++n) {
        uint32_t k[4];  // tokens 0-7 and 8-15, each with both halves of the 16 dims
        load_matrices(k, k_tile + chunk_offset<kDim>(n * 16 + token, step * 2 + (lane / 8) % 2));
        multiply_add(scores[2 * n], q[step], k[0], k[1]);
        multiply_add(scores[2 * n + 1], q[step], k[2], k[3]);
      }
    }
  }

  __device__ void hide(const Params& params, const int32_t* positions,
                       float (&scores)[kColumns / 8][4]) const {
    const int32_t window = params.args.config.sliding_window;
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t at = positions[n * 8 + (lane % 4) * 2 + i % 2];
        const int32_t own = position[i / 2];
        if (at > own || (window > 0 && at <= own - window)) scores[n][i] = kNothingSeen;
      }
    }
  }

  __device__ void update_softmax(float scale_log2, float (&scores)[kColumns / 8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = kNothingSeen;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const float new_max = fmaxf(row_max[half], largest * scale_log2);
      // A row that has seen nothing keeps -infinity; 0 stands in to avoid inf - inf.
      const float base = new_max == kNothingSeen ? 0.0F : new_max;
      const float rescale = exp2f(row_max[half] - base);
      row_max[half] = new_max;
      row_sum[half] *= rescale;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        acc[i][2 * half] *= rescale;
        acc[i][2 * half + 1] *= rescale;
      }
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[n][i] = exp2f(scores[n][i] * scale_log2 - base);
          row_sum[half] += scores[n][i];
        }
      }
    }
  }

  __device__ void add_values(uint32_t v_tile, const float (&scores)[kColumns / 8][4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int c = 0; c < kColumns / 16; ++c) {
      const uint32_t weights[4] = {pack_bf16(scores[2 * c][0], scores[2 * c][1]),
                                   pack_bf16(scores[2 * c][2], scores[2 * c][3]),
                                   pack_bf16(scores[2 * c + 1][0], scores[2 * c + 1][1]),
                                   pack_bf16(scores[2 * c + 1][2], scores[2 * c + 1][3])};
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t values[4];  // 16 tokens x 16 dims
        load_matrices_transposed(
            values, v_tile + chunk_offset<kDim>(c * 16 + lane % 16, n * 2 + lane / 16));
        multiply_add(acc[2 * n], weights, values[0], values[1]);
        multiply_add(acc[2 * n + 1], weights, values[2], values[3]);
      }
    }
  }

  __device__ void write(const Params& params) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = row_sum[half];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      if (result[half] < 0) continue;
      const float factor = sum > 0.0F ? 1.0F / sum : 0.0F;
      float* out = params.args.out + result[half] * kDim + (lane % 4) * 2;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        *reinterpret_cast<float2*>(out + i * 8) = {acc[i][2 * half] * factor,
                                                   acc[i][2 * half + 1] * factor};
      }
      if (lane % 4 == 0) {
        params.args.lse[result[half]] =
            sum > 0.0F ? (row_max[half] + log2f(sum)) * kLn2 : kNothingSeen;
      }
    }
  }
};

// All threads of the block: what another instance sends has arrived. After a wait that failed the
// step computes on stale data and is thrown away by the host.
__device__ void wait_for_source(const Params& params, int32_t source, int32_t* open_source) {
  const ExchangeView& exchange = params.args.exchange;
  if (exchange.num_instances <= 1 || source < 0 || source == exchange.self) return;
  if (source == *open_source) return;
  if (threadIdx.x == 0) {
    wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kQuery, source),
                  number_of(params.args.epoch), exchange.wait, WaitPurpose::kQuery, source);
  }
  __syncthreads();
  *open_source = source;
}

template <int kDim, CacheType kType>
__device__ void attend_tile(const Params& params, const Tile& tile, uint8_t* shared) {
  using Layout = SharedLayout<kDim>;
  constexpr bool kLandsLate = kType == CacheType::kE4m3;
  WarpState<kDim> state;
  ColumnCopy<kDim, kType> copy;
  if (tile.begin < tile.end) {
    copy.ask(params, tile, tile.begin, 0, shared);
    if (kLandsLate) copy.template land<0>(0, shared);
  }
  commit_copies();
  state.start(params, tile);
  const int32_t window = params.args.config.sliding_window;
  for (int32_t from = tile.begin, stage = 0; from < tile.end; from += kColumns, stage ^= 1) {
    const bool more = from + kColumns < tile.end;
    if (more) copy.ask(params, tile, from + kColumns, stage ^ 1, shared);
    commit_copies();
    if (!kLandsLate) copy.template land<1>(stage, shared);
    __syncthreads();
    const auto* positions =
        reinterpret_cast<const int32_t*>(shared + Layout::kPositionsAt) + stage * kColumns;
    const uint32_t k_tile = shared_address(shared) + stage * Layout::kStageBytes;
    float scores[kColumns / 8][4] = {};
    state.score(k_tile, scores);
    const bool all_seen = positions[kColumns - 1] <= tile.first_position() &&
                          (window == 0 || positions[0] > tile.last_position() - window);
    if (!all_seen) state.hide(params, positions, scores);
    state.update_softmax(params.scale_log2, scores);
    state.add_values(k_tile + Layout::kTileBytes, scores);
    if (kLandsLate && more) copy.template land<0>(stage ^ 1, shared);
    __syncthreads();  // the stage may be written again
  }
  state.write(params);
}

template <int kDim, CacheType kType>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    prefill_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(128) uint8_t shared[];
  int32_t open_source = -1;
  Tile tile;
  for (auto index = static_cast<int32_t>(blockIdx.x); find_tile(params, index, &tile);
       index += static_cast<int32_t>(gridDim.x)) {
    find_range(params, &tile);
    wait_for_source(params, tile.item.source, &open_source);
    attend_tile<kDim, kType>(params, tile, shared);
  }
}

Status check_config(const AttentionDecodeConfig& config) {
  if (config.head_dim != 64 && config.head_dim != 128) {
    return unsupported("prefill attention covers head sizes 64 and 128, not " +
                       std::to_string(config.head_dim));
  }
  if (config.block_size < 1) return invalid_argument("the block size must be positive");
  const bool groups_fit = config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0 &&
                          config.num_heads / config.num_kv_heads <= kGroupMax;
  if (!groups_fit) {
    return unsupported("prefill attention covers up to 16 query heads per KV head, not " +
                       std::to_string(config.num_heads) + " heads over " +
                       std::to_string(config.num_kv_heads));
  }
  return ok_status();
}

template <int kDim, CacheType kType>
Status launch(const Params& params, int num_sms, cudaStream_t stream) {
  constexpr int kBytes = SharedLayout<kDim>::kTotalBytes;
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(prefill_kernel<kDim, kType>,
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
                  "shared memory of prefill attention"));
  prefill_kernel<kDim, kType>
      <<<static_cast<unsigned>(num_sms * kBlocksPerSm), kThreads, kBytes, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of prefill attention");
}

template <int kDim>
Status launch_for_cache(const Params& params, int num_sms, cudaStream_t stream) {
  return params.args.config.cache_type == CacheType::kE4m3
             ? launch<kDim, CacheType::kE4m3>(params, num_sms, stream)
             : launch<kDim, CacheType::kBf16>(params, num_sms, stream);
}

}  // namespace

Status launch_attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  Params params = {};
  params.args = args;
  params.group = args.config.num_heads / args.config.num_kv_heads;
  params.tile_tokens = kRows / params.group;
  params.scale_log2 = args.config.softmax_scale * kLog2E;
  return args.config.head_dim == 64 ? launch_for_cache<64>(params, num_sms, stream)
                                    : launch_for_cache<128>(params, num_sms, stream);
}

}  // namespace nanocp::cuda
