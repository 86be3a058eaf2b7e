// Device code of mla_decode.cu: what the attend kernels for up to 32 heads have in common. Tokens
// are the rows of products and heads the columns, so that few heads need no padding to 64.
#pragma once

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/warpgroup_mma_few.cuh"
#include "backend/cuda/mla_decode_kernels.cuh"

namespace nanocp::cuda {
namespace {

constexpr float kMaxSlack = 8.0F;  // base 2: the maximum rises only for scores above it by more
constexpr int kValueChunks = kLatentDim / 64;

constexpr int kParts = kChunks / kPartChunks;
constexpr uint32_t kPartBytes = kPartChunks * kChunkBytes;
// Eight tokens lie together in a part, chunk by chunk, as they do in memory.
constexpr uint32_t kNextChunk = 8 * 128;
constexpr uint32_t kEightTokens = kPartChunks * kNextChunk;
constexpr uint32_t kSharedBytesMax = 227 * 1024;

// The warpgroup that computes. `SharedT`: the kernel's shared memory, whose kColumns is the number
// of heads, padded to 16 or 32.
template <typename SharedT>
struct FewProducts {
  static constexpr int kN = SharedT::kColumns;
  static constexpr int kOwn = kN / 4;   // heads of a thread
  static constexpr int kRegs = kN / 2;  // of a product
  static constexpr int kSets = kN == 16 ? 4 : 2;
  static constexpr int kSelfBarrier = 1;

  const Params& params;
  SharedT& shared;
  int32_t thread;
  float out[kValueChunks][kRegs];
  float sets[kSets][kRegs];  // sums of scores under way
  float scores[kRegs];
  float max[kOwn];  // base 2
  float sum[kOwn];  // of this thread's tokens

  __device__ bool leads_warp() const { return thread % 32 == 0; }
  __device__ int32_t head(int own) const { return own / 2 * 8 + thread % 4 * 2 + own % 2; }
  // A thread's heads are the columns of its values: value i of a product is of head own(i).
  __device__ static constexpr int own(int i) { return i / 4 * 2 + i % 2; }
  __device__ uint32_t part(int32_t number, int part) const {
    return shared_address(shared.ring[0]) +
           static_cast<uint32_t>((number * kParts + part) % SharedT::kSlots) * kPartBytes;
  }
  __device__ void sync_self() const { sync_threads(kSelfBarrier, kGroupThreads); }

  __device__ void release(int32_t number, int part) const {
    if (!leads_warp()) return;
    arrive(shared_address(&shared.empty[(number * kParts + part) % SharedT::kSlots]));
  }

  // Asks for the scores of a tile.
  __device__ void ask_scores(int32_t number) {
    const uint64_t q = describe_rows(shared_address(shared.q));
    uint64_t k[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) k[p] = encode_matrix(part(number, p), 16, kEightTokens);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int32_t at = number * kParts + p;
      wait_phase(shared_address(&shared.full[at % SharedT::kSlots]), (at / SharedT::kSlots) & 1);
      begin_products();
#pragma unroll
      for (int c = 0; c < kPartChunks; ++c) {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          const uint32_t offset = (p * kPartChunks + c) * SharedT::kQueryChunkBytes + step * 32;
          multiply_few<kN, false>(sets[step % kSets], advance(k[p], c * kNextChunk + step * 32),
                                  advance(q, offset), p + c > 0 || step >= kSets);
        }
      }
    }
    commit_products();
  }
  __device__ void take_scores() {
    wait_products<0>();
#pragma unroll
    for (int s = 0; s < kSets; ++s) pin(sets[s]);
#pragma unroll
    for (int i = 0; i < kRegs; ++i) {
      scores[i] = sets[0][i];
#pragma unroll
      for (int s = 1; s < kSets; ++s) scores[i] += sets[s][i];
      scores[i] *= params.scale_log2;
    }
  }

  // Raises the maxima to those of the tile.
  __device__ void raise(bool is_first) {
    float largest[kOwn];
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      const int i = o / 2 * 4 + o % 2;
      largest[o] = fmaxf(scores[i], scores[i + 2]);
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        largest[o] = fmaxf(largest[o], __shfl_xor_sync(0xffffffffU, largest[o], distance));
      }
      if (thread % 32 < 4) shared.tile_maxima[thread / 32][head(o)] = largest[o];
    }
    sync_self();
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      float next = max[o];
#pragma unroll
      for (int w = 0; w < 4; ++w) next = fmaxf(next, shared.tile_maxima[w][head(o)]);
      const float factor = exp2_approx(max[o] - next);
      sum[o] *= factor;
      max[o] = next;
      if (is_first) continue;
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        const int i = o / 2 * 4 + o % 2;
        out[c][i] *= factor;
        out[c][i + 2] *= factor;
      }
    }
  }

  __device__ void weigh(int32_t seen, bool is_first) {
    const int32_t token = thread / 32 * 16 + thread % 32 / 4;
    if (seen < kTileTokens) {
#pragma unroll
      for (int i = 0; i < kRegs; ++i) {
        if (token + i % 4 / 2 * 8 >= seen) scores[i] = kNothingSeen;
      }
    }
    bool rises = false;
#pragma unroll
    for (int i = 0; i < kRegs; ++i) rises = rises || scores[i] > max[own(i)] + kMaxSlack;
    if (any_of_threads(kSelfBarrier, kGroupThreads, rises)) raise(is_first);
    uint32_t pairs[kRegs / 2];
#pragma unroll
    for (int i = 0; i < kRegs; i += 2) {
      const float low = exp2_approx(scores[i] - max[own(i)]);
      const float high = exp2_approx(scores[i + 1] - max[own(i + 1)]);
      sum[own(i)] += low;
      sum[own(i + 1)] += high;
      pairs[i / 2] = pack_bf16(low, high);
    }
    const int32_t lane = thread % 32;
#pragma unroll
    for (int part = 0; part < kN / 16; ++part) {
      const uint32_t to =
          shared_address(shared.weights) +
          swizzled_offset(part * 16 + lane / 16 * 8 + lane % 8, thread / 32 * 2 + lane / 8 % 2);
      store_matrices_transposed(to, pairs[part * 4], pairs[part * 4 + 1], pairs[part * 4 + 2],
                                pairs[part * 4 + 3]);
    }
  }

  // Adds up a tile's weighted values, part by part, and gives back each part that is done. Asks for
  // the scores of the next tile meanwhile if there is one.
  template <bool kIsLast>
  __device__ void add_values(int32_t number, bool is_first) {
    const uint64_t weights = describe_rows(shared_address(shared.weights));
    uint64_t values[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) values[p] = encode_matrix(part(number, p), 16, kEightTokens);
#pragma unroll
    for (int c = 0; c < kValueChunks; ++c) pin(out[c]);
    begin_products();
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
#pragma unroll
      for (int step = 0; step < kTileTokens / 16; ++step) {
#pragma unroll
        for (int c = 0; c < kPartChunks && p * kPartChunks + c < kValueChunks; ++c) {
          multiply_few<kN, true>(out[p * kPartChunks + c],
                                 advance(values[p], c * kNextChunk + step * 2 * kEightTokens),
                                 advance(weights, step * 32), !is_first || step > 0);
        }
      }
      commit_products();
    }
    static_assert(kParts == 3);
    constexpr int kNext = kIsLast ? 0 : 1;
    if constexpr (!kIsLast) ask_scores(number + 1);
    wait_products<2 + kNext>();
    release(number, 0);
    wait_products<1 + kNext>();
    release(number, 1);
    wait_products<kNext>();
#pragma unroll
    for (int c = 0; c < kValueChunks; ++c) pin(out[c]);
    release(number, 2);
  }

  // Weights of nothing meet whatever lies behind the last token: make it zeros.
  __device__ void clear_tail(int32_t number, int32_t seen) const {
    constexpr int kPieces = kLatentDim / 8;
    for (int32_t i = thread; i < (kTileTokens - seen) * kPieces; i += kGroupThreads) {
      const int32_t token = seen + i / kPieces;
      const int32_t chunk = i % kPieces / 8;
      clear_shared_16(part(number, chunk / kPartChunks) + chunk % kPartChunks * kNextChunk +
                      token / 8 * kEightTokens + swizzled_offset(token % 8, i % 8));
    }
  }

  // Tiles [begin, end) of the lane, which are one segment; `seen` tokens of the last one count.
  // Calls `on_last` when the last one has been scored.
  template <typename OnLast>
  __device__ void attend(int32_t begin, int32_t end, int32_t seen, int32_t segment,
                         const OnLast& on_last) {
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      max[o] = kNothingSeen;
      sum[o] = 0.0F;
    }
    wait_phase<~0U>(shared_address(&shared.q_full), segment & 1);
    ask_scores(begin);
    const int32_t last = end - 1;
    for (int32_t number = begin; number < last; ++number) {
      take_scores();
      weigh(kTileTokens, number == begin);
      publish_shared();
      sync_self();
      add_values<false>(number, number == begin);
    }
    take_scores();
    if (leads_warp()) arrive(shared_address(&shared.q_empty));
    on_last();
    weigh(seen, last == begin);
    if (seen < kTileTokens) clear_tail(last, seen);
    publish_shared();
    sync_self();
    add_values<true>(last, last == begin);
  }

  // Adds up the sums of all threads.
  __device__ void total(int32_t parity) {
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        sum[o] += __shfl_xor_sync(0xffffffffU, sum[o], distance);
      }
      if (thread % 32 < 4) shared.sums[parity][thread / 32][head(o)] = sum[o];
    }
    sync_self();
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      sum[o] = 0.0F;
#pragma unroll
      for (int warp = 0; warp < 4; ++warp) sum[o] += shared.sums[parity][warp][head(o)];
    }
  }

  __device__ void write_result(int32_t row) const {
    const int32_t num_heads = params.args.config.num_heads;
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      if (head(o) >= num_heads) continue;
      const int64_t at = static_cast<int64_t>(row) * num_heads + head(o);
      if (thread < 4) params.args.lse[at] = (max[o] + log2f(sum[o])) * kLn2;
      float* to = params.args.out + at * kLatentDim + thread / 32 * 16 + thread % 32 / 4;
      const float factor = 1.0F / sum[o];
      const int i = o / 2 * 4 + o % 2;
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        to[c * 64] = out[c][i] * factor;
        to[c * 64 + 8] = out[c][i + 2] * factor;
      }
    }
  }
};

// The warp that asks for queries and, by what the kernels add to it, for tiles.
template <typename SharedT>
struct FewRequests {
  const Params& params;
  SharedT& shared;
  uint64_t policy;
  int32_t lane;
  int32_t num_boxes;  // of a part

  // Of the lane's first tile, as the schedule has looked it up.
  __device__ Box first(const Stretch& stretch, int32_t block) const {
    if (lane >= num_boxes || stretch.count == 0) return {-1, 0};
    return {block, (stretch.tile * kTileTokens + lane * params.box_tokens) %
                       params.args.config.block_size};
  }

  __device__ void load_queries(int32_t segment, int32_t row) const {
    wait_phase(shared_address(&shared.q_empty), (segment + 1) & 1);
    if (lane != 0) return;
    const uint32_t barrier = shared_address(&shared.q_full);
    arrive_expecting(barrier, SharedT::kQueryBytes);
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      load_box(shared_address(shared.q) + chunk * SharedT::kQueryChunkBytes, params.q_map,
               chunk * 64, 0, row, barrier, evict_normal_policy());
    }
  }
};

// The warp that asks for what the others need. `first_block`: of the thread's box of the first
// tile. The schedule and the tables have stood since the step began; all else waits.
template <typename Producer, typename SharedT>
__device__ void ask_few(const Params& params, SharedT& shared, const Stretch& stretch,
                        int32_t first_block, int32_t lane) {
  const Producer producer{{.params = params,
                           .shared = shared,
                           .policy = evict_first_policy(),
                           .lane = lane,
                           .num_boxes = kTileTokens / params.box_tokens}};
  const auto first = producer.first(stretch, first_block);
  producer.prefetch(first);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  ask_for_tiles(producer, stretch, first);
  __syncwarp();
}

}  // namespace
}  // namespace nanocp::cuda
