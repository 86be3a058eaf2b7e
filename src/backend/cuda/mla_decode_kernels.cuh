// Device code of mla_decode.cu: the attend kernel for sm_90a. A block takes 64 heads (fewer are
// padded) and tiles of 64 tokens. A warp asks for tiles; two warpgroups compute. Both hold sums of
// all heads, each of half of the 512 values; they take turns with the scores and the softmax of a
// tile, so that one's products run while the other's softmax does.
#pragma once

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/mla_code_producer.cuh"
#include "backend/cuda/mla_join.cuh"

namespace nanocp::cuda {
namespace {

__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// One of the two warpgroups that compute. Both add up the values of all tiles, each for its half;
// the scores and softmax of a segment's first, third, ... tile are the first one's, of the others
// the second one's. With kScoresFirst scores are asked for behind the sums of the pair before:
// while one warpgroup turns its scores into weights the tensor cores work on the other's scores,
// then on the sums of the first. A thread holds rows `row` and `row` + 8 of 64, see
// warpgroup_mma.cuh.
template <int kSelf, bool kScoresFirst>
struct Computer {
  const Params& params;
  Shared& shared;
  int32_t group;  // of heads
  int32_t row;
  float out[128];
  float scores[32];
  float row_max[2];  // base 2
  float row_sum[2];  // of this thread's columns of the own tiles
  float rescale[2];  // of the sums, before the present tile is added

  __device__ bool leads_warp() const { return threadIdx.x % 32 == 0; }
  __device__ int32_t column() const { return static_cast<int32_t>(threadIdx.x) % 4 * 2; }
  __device__ uint32_t chunk(int stage, int index) const {
    return shared_address(shared.tiles[stage]) + index * kChunkBytes;
  }

  // They may be those of another instance: a minute at least, which the producer's wait for its
  // flag does not take.
  __device__ void wait_queries(int32_t segment) const {
    wait_phase<~0U>(shared_address(&shared.q_full), segment & 1);
  }

  // Asks for the scores of an own tile, as it arrives.
  __device__ void score(int32_t number) {
    const int stage = number % kStages;
    const uint64_t q = describe_rows(shared_address(shared.q));
    const uint64_t k = describe_rows(chunk(stage, 0));
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      wait_phase(shared_address(&shared.full[stage][i]), (number / kStages) & 1);
      begin_products();
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint32_t offset = i * kChunkBytes + step * 32;
        multiply_rows_64(scores, advance(q, offset), advance(k, offset), i + step > 0);
      }
    }
    commit_products();
  }

  // Turns the scores of the first `seen` tokens into weights, and passes them on.
  __device__ void weigh(int32_t number, int32_t seen) {
    const int stage = number % kStages;
    if (seen < kTileTokens) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        if (i / 4 * 8 + column() + i % 2 >= seen) scores[i] = kNothingSeen;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = kNothingSeen;
#pragma unroll
      for (int i = 0; i < 32; i += 4) {
        largest = fmaxf(largest, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const float new_max = fmaxf(row_max[half], largest * params.scale_log2);
      const int32_t at = row + half * 8;
      if (threadIdx.x % 4 == 0) shared.maxima[stage][at] = new_max;
      const uint32_t to = chunk(stage, kRotaryChunk) + swizzled_offset(at, 0) + column() * 2;
      float sum = 0.0F;
#pragma unroll
      for (int piece = 0; piece < 8; ++piece) {
        const int i = piece * 4 + 2 * half;
        const float low = exp2_approx(fmaf(scores[i], params.scale_log2, -new_max));
        const float high = exp2_approx(fmaf(scores[i + 1], params.scale_log2, -new_max));
        sum += low + high;
        store_shared_4(to ^ static_cast<uint32_t>(piece * 16), pack_bf16(low, high));
      }
      rescale[half] = exp2_approx(row_max[half] - new_max);
      row_sum[half] = row_sum[half] * rescale[half] + sum;
      row_max[half] = new_max;
    }
    publish_shared();
    __syncwarp();
    arrive_threads(kWeightsBarrier + kSelf, kComputeThreads);
  }

  // Waits for the other's weights of a tile.
  __device__ void receive_weights(int32_t number) {
    sync_threads(kWeightsBarrier + 1 - kSelf, kComputeThreads);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float new_max = shared.maxima[number % kStages][row + half * 8];
      rescale[half] = exp2_approx(row_max[half] - new_max);
      row_sum[half] *= rescale[half];
      row_max[half] = new_max;
    }
  }

  // Weights of nothing meet whatever lies behind the last token: make it zeros in the own half.
  __device__ void clear_tail(int32_t number, int32_t seen) const {
    const int stage = number % kStages;
    const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
    for (int32_t i = thread; i < (kTileTokens - seen) * kHalfChunks * 8; i += kGroupThreads) {
      const int32_t token = seen + i / (kHalfChunks * 8);
      const int32_t piece = i % (kHalfChunks * 8);
      const uint32_t to =
          chunk(stage, kSelf * kHalfChunks + piece / 8) + swizzled_offset(token, piece % 8);
      clear_shared_16(to);
    }
    publish_shared();
    sync_threads(kScoresBarrier + kSelf, kGroupThreads);
  }

  // Asks for the sums of a tile's weighted values.
  __device__ void add_values(int32_t number, int32_t seen, bool is_first) {
    if (seen < kTileTokens) clear_tail(number, seen);
    const int stage = number % kStages;
    if (!is_first && __any_sync(0xffffffffU, rescale[0] != 1.0F || rescale[1] != 1.0F)) {
#pragma unroll
      for (int i = 0; i < 128; ++i) out[i] *= rescale[i / 2 % 2];
    }
    const uint64_t weights = describe_rows(chunk(stage, kRotaryChunk));
    const uint64_t values = describe_depth(chunk(stage, kSelf * kHalfChunks), kChunkBytes);
    begin_products();
#pragma unroll
    for (int step = 0; step < kTileTokens / 16; ++step) {
      multiply_depth_256(out, advance(weights, step * 32), advance(values, step * 2048),
                         !is_first || step > 0);
    }
    commit_products();
  }

  __device__ void wait_values(int32_t number) {
    const int stage = number % kStages;
    wait_products<0>();
    pin(out);
    if (!leads_warp()) return;
    arrive(shared_address(&shared.empty[stage][kSelf]));
    arrive(shared_address(&shared.empty[stage][2]));
  }

  // The weights of an own tile, whose scores have been computed.
  __device__ void make_weights(int32_t number, int32_t seen, bool is_last) {
    pin(scores);
    if (is_last && leads_warp()) arrive(shared_address(&shared.q_empty));
    sync_threads(kScoresBarrier + kSelf, kGroupThreads);  // nobody reads the rotary keys any more
    weigh(number, seen);
  }

  // Tiles [begin, end) of the lane, which are one segment; `seen` tokens of the last one count.
  __device__ void attend(int32_t begin, int32_t end, int32_t seen, int32_t segment) {
    row_max[0] = row_max[1] = kNothingSeen;
    row_sum[0] = row_sum[1] = 0.0F;
    if constexpr (kSelf == 0) {
      attend_first(begin, end, seen, segment);
    } else {
      attend_second(begin, end, seen, segment);
    }
  }

  __device__ void attend_first(int32_t begin, int32_t end, int32_t seen, int32_t segment) {
    wait_queries(segment);
    score(begin);
    for (int32_t number = begin;; number += 2) {
      const int32_t tokens = number + 1 == end ? seen : kTileTokens;
      wait_products<0>();
      make_weights(number, tokens, number + 2 >= end);
      add_values(number, tokens, number == begin);
      wait_values(number);
      if (number + 1 == end) break;
      receive_weights(number + 1);
      add_values(number + 1, number + 2 == end ? seen : kTileTokens, false);
      wait_values(number + 1);
      if (number + 2 == end) break;
      score(number + 2);
    }
  }

  __device__ void attend_second(int32_t begin, int32_t end, int32_t seen, int32_t segment) {
    const int32_t pairs_end = begin + (end - begin) / 2 * 2;
    if (begin < pairs_end) {
      wait_queries(segment);
      if constexpr (kScoresFirst) score(begin + 1);
      for (int32_t number = begin;; number += 2) {
        receive_weights(number);
        add_values(number, kTileTokens, number == begin);
        if constexpr (kScoresFirst) {
          wait_products<1>();  // the scores; the sums go on
        } else {
          wait_values(number);
          score(number + 1);
          wait_products<0>();
        }
        make_weights(number + 1, number + 2 == end ? seen : kTileTokens, number + 2 == pairs_end);
        if constexpr (kScoresFirst) wait_values(number);
        add_values(number + 1, number + 2 == end ? seen : kTileTokens, false);
        wait_values(number + 1);
        if (number + 2 == pairs_end) break;
        if constexpr (kScoresFirst) score(number + 3);
      }
    } else if (leads_warp()) {
      arrive(shared_address(&shared.q_empty));
    }
    if (pairs_end == end) return;
    receive_weights(pairs_end);
    add_values(pairs_end, seen, begin == pairs_end);
    wait_values(pairs_end);
  }

  // Writes the segment's result, or its part.
  __device__ void finish(const Segment& segment, int32_t lane, bool begins_here, int32_t parity) {
    const bool is_final = begins_here && segment.tile + segment.count == segment.span.num_tiles;
    const int32_t slot = partial_slot(params, lane, begins_here, group);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row_sum[half] += __shfl_xor_sync(0xffffffffU, row_sum[half], 1);
      row_sum[half] += __shfl_xor_sync(0xffffffffU, row_sum[half], 2);
      if (threadIdx.x % 4 == 0) shared.sums[parity][kSelf][row + half * 8] = row_sum[half];
    }
    sync_threads(kSumsBarrier, kComputeThreads);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t head = row + half * 8;
      const int32_t in_row = group * kHeads + head;
      if (in_row >= params.args.config.num_heads) continue;
      const float sum = shared.sums[parity][0][head] + shared.sums[parity][1][head];
      const bool writes_sums = kSelf == 0 && threadIdx.x % 4 == 0;
      float* to;
      float factor = 1.0F;
      if (is_final) {
        const int64_t at =
            static_cast<int64_t>(segment.info.row) * params.args.config.num_heads + in_row;
        to = params.args.out + at * kLatentDim;
        factor = 1.0F / sum;
        if (writes_sums) params.args.lse[at] = (row_max[half] + log2f(sum)) * kLn2;
      } else {
        const int64_t at = static_cast<int64_t>(slot) * params.slot_heads + head;
        to = params.workspace.partial_out + at * kLatentDim;
        if (writes_sums) {
          params.workspace.partial_max[at] = row_max[half];
          params.workspace.partial_sum[at] = sum;
        }
      }
      to += kSelf * (kLatentDim / 2) + column();
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        *reinterpret_cast<float2*>(to + i * 8) = {out[i * 4 + 2 * half] * factor,
                                                  out[i * 4 + 2 * half + 1] * factor};
      }
    }
  }

  __device__ void run(const Stretch& stretch, int32_t lane) {
    Segment segment;
    segment.start(stretch);
    int32_t number = 0;
    for (int32_t s = 0; segment.left > 0; ++s, segment.next(params)) {
      const int32_t last = segment.tile + segment.count - 1;
      attend(number, number + segment.count,
             min(kTileTokens, segment.span.token_end - last * kTileTokens), s);
      finish(segment, lane, segment.tile == 0, s & 1);
      // In the loop: behind it the compiler would want more registers than there are, and make each
      // product wait for the one before.
      if (segment.left == segment.count) arrive(shared_address(&shared.parts_written));
      number += segment.count;
    }
  }
};

// Fills shared memory: the threads of the third warpgroup.
template <bool kScoresFirst, CacheType kType>
__device__ void produce(const Params& params, Shared& shared, const Stretch& stretch, int32_t group,
                        int32_t thread) {
  const uint64_t policy = params.groups == 1 ? evict_first_policy() : evict_normal_policy();
  if constexpr (kType == CacheType::kBf16) {
    if (thread < 32) {
      const Producer<!kScoresFirst> producer{.params = params,
                                             .shared = shared,
                                             .policy = policy,
                                             .group = group,
                                             .lane = thread,
                                             .num_boxes = kTileTokens / params.box_tokens};
      const auto first = look_up_box(params, stretch.info, stretch.tile, thread);
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
      ask_for_tiles(producer, stretch, first);
    } else {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
      if (stretch.count > 0) load_first_queries(params, shared, stretch.info, group, thread - 32);
      write_neutral_rows(params, thread - 32, kIdleThreads);
    }
  } else {
    const CodeCache cache = {.map = params.cache_map,
                             .codes = static_cast<const uint8_t*>(params.args.cache),
                             .block_stride = params.args.block_stride,
                             .block_size = params.args.config.block_size};
    const int32_t warp = __shfl_sync(0xffffffffU, thread / 32, 0);
    const CodeWarp codes{.cache = cache, .shared = shared.codes, .warp = warp, .lane = thread % 32};
    CodeProducer producer{.params = params,
                          .shared = shared,
                          .codes = codes,
                          .policy = policy,
                          .group = group,
                          .count = stretch.count};
    producer.start(stretch);
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    if (stretch.count > 0) producer.work();
    write_neutral_rows(params, thread, kGroupThreads);
  }
}

template <bool kScoresFirst, CacheType kType>
__global__ void __launch_bounds__(kThreads, 1)
    attend_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t raw[];
  Shared& shared = *reinterpret_cast<Shared*>(raw);
  constexpr bool kIsBf16 = kType == CacheType::kBf16;
  if (threadIdx.x == 0) init_barriers(shared, kIsBf16 ? 1 : kCodeWarps);
  if (threadIdx.x == kComputeThreads) {
    prefetch_tensor_map(params.q_map);
    prefetch_tensor_map(params.cache_map);
  }
  // The schedule and the tables have stood since the step began; all else waits.
  const auto lane = static_cast<int32_t>(blockIdx.x) / params.groups;
  const auto group = static_cast<int32_t>(blockIdx.x) % params.groups;
  const Stretch stretch = params.workspace.stretches[lane];
  const int32_t warpgroup =
      __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x) / kGroupThreads, 0);
  const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
  if (threadIdx.x >= kThreads - 2) read_shared_row(params, shared, lane, thread % 2);
  __syncthreads();
  if (warpgroup == 2) {
    give_registers<kIsBf16 ? kProducerRegisters : kSpreaderRegisters>();
    produce<kScoresFirst, kType>(params, shared, stretch, group, thread);
    if (stretch.count == 0) return;
    wait_phase<~0U>(shared_address(&shared.parts_written), 0);
    join_rows(params, shared, lane, group, thread);
    return;
  }
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (stretch.count == 0) return;
  take_registers<kIsBf16 ? kComputeRegisters : kComputeRegistersBesideSpreaders>();
  const int32_t row = thread / 32 * 16 + thread % 32 / 4;
  if (warpgroup == 0) {
    Computer<0, kScoresFirst>{.params = params, .shared = shared, .group = group, .row = row}.run(
        stretch, lane);
  } else {
    Computer<1, kScoresFirst>{.params = params, .shared = shared, .group = group, .row = row}.run(
        stretch, lane);
  }
}

}  // namespace
}  // namespace nanocp::cuda
