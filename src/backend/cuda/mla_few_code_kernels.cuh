// Device code of mla_decode.cu: the attend kernel for up to 32 heads where the cache holds codes,
// sm_90a. Tokens are the rows of products and heads the columns, so that few heads need no padding
// to 64.
#pragma once

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/warpgroup_mma_few.cuh"
#include "backend/cuda/mla_decode_kernels.cuh"
#include "backend/cuda/mla_few_code_producer.cuh"

namespace nanocp::cuda {
namespace {
namespace few_codes {

constexpr float kMaxSlack = 8.0F;  // base 2: the maximum rises only for scores above it by more

template <int kN, CacheType kType>
struct FewComputer {
  using SharedT = FewShared<kN, kType>;
  static constexpr int kOwn = kN / 4;   // heads of a thread
  static constexpr int kRegs = kN / 2;  // of a product
  static constexpr int kSets = kN == 16 ? 4 : 2;
  static constexpr int kSelfBarrier = 1;

  const Params& params;
  SharedT& shared;
  int32_t thread;
  float out[kValueChunks][kRegs];
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

  __device__ void release(int32_t number) const {
    if (!leads_warp()) return;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      arrive(shared_address(&shared.empty[(number * kParts + p) % SharedT::kSlots]));
    }
  }

  __device__ void score(int32_t number) {
    float sets[kSets][kRegs];
    const uint64_t q = describe_rows(shared_address(shared.q));
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int32_t at = number * kParts + p;
      wait_phase(shared_address(&shared.full[at % SharedT::kSlots]), (at / SharedT::kSlots) & 1);
      const uint64_t k = encode_matrix(part(number, p), 16, kEightTokens);
      begin_products();
#pragma unroll
      for (int c = 0; c < kPartChunks; ++c) {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          const uint32_t offset = (p * kPartChunks + c) * SharedT::kQueryChunkBytes + step * 32;
          multiply_few<kN, false>(sets[step % kSets], advance(k, c * kNextChunk + step * 32),
                                  advance(q, offset), p + c > 0 || step >= kSets);
        }
      }
    }
    commit_products();
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

  // Asks for the sums of a tile's weighted values.
  __device__ void add_values(int32_t number, bool is_first) {
    const uint64_t weights = describe_rows(shared_address(shared.weights));
    uint64_t values[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) values[p] = encode_matrix(part(number, p), 16, kEightTokens);
#pragma unroll
    for (int c = 0; c < kValueChunks; ++c) pin(out[c]);
    begin_products();
#pragma unroll
    for (int step = 0; step < kTileTokens / 16; ++step) {
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        const uint32_t offset = c % kPartChunks * kNextChunk + step * 2 * kEightTokens;
        multiply_few<kN, true>(out[c], advance(values[c / kPartChunks], offset),
                               advance(weights, step * 32), !is_first || step > 0);
      }
    }
    commit_products();
  }
  __device__ void wait_values(int32_t number) {
    wait_products<0>();
#pragma unroll
    for (int c = 0; c < kValueChunks; ++c) pin(out[c]);
    release(number);
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

  // Tiles [begin, end) of the lane, which are one segment; `seen` tokens of the last one count.
  // `soon`: where to say that its part comes, or none.
  __device__ void attend(int32_t begin, int32_t end, int32_t seen, int32_t segment,
                         uint32_t* soon) {
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      max[o] = kNothingSeen;
      sum[o] = 0.0F;
    }
    wait_phase<~0U>(shared_address(&shared.q_full), segment & 1);
    for (int32_t number = begin; number < end; ++number) {
      const bool is_last = number + 1 == end;
      score(number);
      if (is_last && leads_warp()) arrive(shared_address(&shared.q_empty));
      if (is_last && soon != nullptr && thread == 0) store_soon(soon, shared.launch);
      weigh(is_last ? seen : kTileTokens, number == begin);
      if (is_last && seen < kTileTokens) clear_tail(number, seen);
      publish_shared();
      sync_self();
      add_values(number, number == begin);
      if (is_last) total(segment & 1);  // beside the products
      wait_values(number);
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

  // As vectors of two heads and two columns, which the threads have.
  __device__ void write_part_values(int32_t lane, bool begins_here) const {
    const int32_t slot = partial_slot(params, lane, begins_here, 0);
    auto* to = reinterpret_cast<uint4*>(params.workspace.partial_out) +
               static_cast<int64_t>(slot) * (kN * kLatentDim / 4) + thread;
#pragma unroll
    for (int j = 0; j < kRegs / 4; ++j) {
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        const float* from = out[c] + j * 4;
        store_values(to + (j * kValueChunks + c) * kGroupThreads,
                     {from[0], from[1], from[2], from[3]}, shared.launch);
      }
    }
  }
  __device__ void write_part_stats(int32_t lane, bool begins_here) const {
    if (thread >= 4) return;
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      store_stats(code_part_stats<kN>(params, lane, begins_here, head(o)), max[o], sum[o],
                  shared.launch);
    }
  }

  __device__ void run(const Stretch& stretch, int32_t lane) {
    Segment segment;
    segment.start(stretch);
    int32_t number = 0;
    for (int32_t s = 0; segment.left > 0; ++s, segment.next(params)) {
      const int32_t last = segment.tile + segment.count - 1;
      const bool begins_here = segment.tile == 0;
      const bool is_part = !begins_here || segment.count < segment.span.num_tiles;
      attend(number, number + segment.count,
             min(kTileTokens, segment.span.token_end - last * kTileTokens), s,
             is_part ? part_soon(params, lane, begins_here) : nullptr);
      if (!is_part) {
        write_result(segment.info.row);
      } else {
        write_part_values(lane, begins_here);
        write_part_stats(lane, begins_here);
      }
      number += segment.count;
    }
  }
};

// All of a warpgroup, from the registers that a kernel for codes starts with.
template <int kCount>
__device__ void set_registers() {
  if constexpr (kCount > kFewCodeRegisters) {
    take_registers<kCount>();
  } else {
    give_registers<kCount>();
  }
}

template <int kN, CacheType kType>
__global__ void __launch_bounds__(few_threads(kType), 1)
    attend_few_kernel(const __grid_constant__ Params params) {
  using SharedT = FewShared<kN, kType>;
  extern __shared__ __align__(1024) uint8_t raw[];
  auto& shared = *reinterpret_cast<SharedT*>(raw);
  const auto lane = static_cast<int32_t>(blockIdx.x);
  const Stretch stretch = params.workspace.stretches[lane];
  // Not behind a look at the stretch.
  const int32_t first_block =
      params.workspace.stretches[lane].first_blocks[threadIdx.x % kTileBoxes];
  if (threadIdx.x == 0) init_few_barriers(shared);
  if (threadIdx.x == kGroupThreads) {
    prefetch_tensor_map(params.q_map);
    if constexpr (!SharedT::kIsCodes) prefetch_tensor_map(params.cache_map);
  }
  const int32_t warp = __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x) / 32, 0);
  const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
  if (warp == kFewThreads / 32 - 1 && thread >= kGroupThreads - 2) {
    read_shared_row(params, shared, lane, thread % 2);
  }
  __syncthreads();
  const auto joiner = static_cast<int32_t>(threadIdx.x) - SharedT::kFirstJoiner;
  if (SharedT::kIsCodes && warp >= (kGroupThreads + kSpreadThreads) / 32) {
    set_registers<SharedT::kAskRegisters>();
    if (thread < 32) ask_few(params, shared, stretch, first_block, thread);
    return;  // all that it asked for has arrived when the others are done
  }
  if (warp >= kGroupThreads / 32) {
    if constexpr (SharedT::kIsCodes) set_registers<SharedT::kSpreadRegisters>();
    if (!SharedT::kIsCodes && warp == kGroupThreads / 32) {
      ask_few(params, shared, stretch, first_block, thread);
    } else {
      serve_few(params, shared, stretch, static_cast<int32_t>(threadIdx.x) - kGroupThreads);
    }
  } else {
    if constexpr (SharedT::kIsCodes) set_registers<SharedT::kComputeRegisters>();
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    if (stretch.count > 0) {
      FewComputer<kN, kType>{.params = params, .shared = shared, .thread = thread}.run(stretch,
                                                                                       lane);
    }
    if constexpr (SharedT::kIsCodes) {
      if (stretch.count > 0) arrive_threads(kPartsBarrier, kGroupThreads + kSpreadThreads);
      return;
    }
  }
  if (stretch.count == 0) return;
  sync_threads(kPartsBarrier, SharedT::kIsCodes ? kGroupThreads + kSpreadThreads : kFewThreads);
  join_code_rows<kN>(params, shared, lane, joiner);
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
