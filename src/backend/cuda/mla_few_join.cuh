// Device code of mla_decode.cu: joins the parts of a row that several lanes have, for up to 32
// heads. Each of the lanes adds up a share of the row, straight from memory.
#pragma once

#include "backend/cuda/mla_join.cuh"

namespace nanocp::cuda {
namespace {

// Maximum (base 2) and sum of a lane's part; lanes adjacent.
template <int kN>
__device__ inline float2* part_stats(const Params& params, int32_t lane, bool begins_here,
                                     int32_t head) {
  return params.workspace.partial_stats + ((begins_here ? kN : 0) + head) * kLanesMax + lane;
}

// Before the lane counts its own part. Counters are zero when the step begins, and each launch adds
// as many parts as there are; nothing need be cleared.
template <typename SharedT>
__device__ inline void expect_parts(const Params& params, SharedT& shared, int32_t index) {
  const SharedRow& row = shared.rows[index];
  if (row.num_parts == 0) return;
  const int32_t now =
      *static_cast<volatile const int32_t*>(params.workspace.counters + row.first_lane);
  shared.all_there[index] = (now / row.num_parts + 1) * row.num_parts;
}

// A lane's share of one row: vectors of two heads and two columns, as FewComputer writes them.
template <int kN, typename SharedT>
struct FewJoin {
  static constexpr int kThreadsAll = 2 * kGroupThreads;
  static constexpr int kVectors = kN * kLatentDim / 4;
  static constexpr int kEightHeads = kLatentDim / 64 * kGroupThreads;  // vectors of eight heads
  static constexpr int kAtOnce = 8;
  static_assert((kN * kLanesMax + kThreadsAll * 4) * sizeof(float) <= sizeof(SharedT::ring));

  const Params& params;
  SharedT& shared;
  const SharedRow row;
  int32_t thread;
  int32_t begin;
  int32_t end;
  int32_t teams;  // each adds up some of the parts of a short share
  int32_t team;

  __device__ float* weights() const { return reinterpret_cast<float*>(shared.ring); }
  __device__ float4* sums() const { return reinterpret_cast<float4*>(weights() + kN * kLanesMax); }

  struct Cursor {
    int32_t vector;
    int32_t part;
  };
  __device__ Cursor first() const {
    if (teams == 1) return {begin + thread, 0};
    return {team < teams ? begin + thread % (end - begin) : end, team};
  }
  __device__ void next(Cursor& at) const {
    at.part += teams;
    if (at.part < row.num_parts) return;
    at.part = team;
    at.vector += kThreadsAll;
  }

  __device__ void load(Cursor at, float4 (&values)[kAtOnce]) const {
    const auto* from = reinterpret_cast<const float4*>(params.workspace.partial_out);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i, next(at)) {
      if (at.vector >= end) continue;
      const int32_t slot = 2 * (row.first_lane + at.part) + (at.part == 0 ? 1 : 0);
      values[i] = __ldcg(from + slot * kVectors + at.vector);
    }
  }

  // What the parts of a head count, by one warp.
  __device__ void weigh(int32_t head) const {
    constexpr int kPerLane = (kLanesMax + 31) / 32;
    const int32_t lane = thread % 32;
    float2 stats[kPerLane];
    float largest = kNothingSeen;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = lane + i * 32;
      stats[i] = {kNothingSeen, 0.0F};
      if (part < row.num_parts)
        stats[i] = __ldcg(part_stats<kN>(params, row.first_lane + part, part == 0, head));
    }
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) largest = fmaxf(largest, stats[i].x);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
    }
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      stats[i].x = exp2f(stats[i].x - largest);
      total += stats[i].x * stats[i].y;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      total += __shfl_xor_sync(0xffffffffU, total, distance);
    }
    const float inverse = __fdividef(1.0F, total);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = lane + i * 32;
      if (part < row.num_parts) weights()[head * kLanesMax + part] = stats[i].x * inverse;
    }
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t vector = head / 8 * kEightHeads + head % 8 / 2;  // the head's first
    if (lane == 0 && vector >= begin && vector < end && head < num_heads) {
      params.args.lse[static_cast<int64_t>(row.row) * num_heads + head] =
          (largest + log2f(total)) * kLn2;
    }
  }
  __device__ void weigh() const {
    const int32_t last = (end - 1) / kEightHeads * 8 + 7;
    for (int32_t head = begin / kEightHeads * 8 + thread / 32; head <= last;
         head += kThreadsAll / 32) {
      weigh(head);
    }
  }

  __device__ static int32_t head_of(int32_t vector) {
    return vector / kEightHeads * 8 + vector % 4 * 2;
  }
  __device__ void store(int32_t vector, const float4& value) const {
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t head = head_of(vector);
    const int32_t column = vector % kEightHeads / kGroupThreads * 64 +
                           vector % kGroupThreads / 32 * 16 + vector % 32 / 4;
    float* to =
        params.args.out + (static_cast<int64_t>(row.row) * num_heads + head) * kLatentDim + column;
    if (head < num_heads) {
      to[0] = value.x;
      to[8] = value.z;
    }
    if (head + 1 < num_heads) {
      to[kLatentDim] = value.y;
      to[kLatentDim + 8] = value.w;
    }
  }

  __device__ void run(Cursor at) const {
    float4 values[kAtOnce];
    load(at, values);
    weigh();
    __syncthreads();
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    while (at.vector < end) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (at.vector >= end) break;
        const float* low = weights() + head_of(at.vector) * kLanesMax + at.part;
        sum.x += values[i].x * low[0];
        sum.y += values[i].y * low[kLanesMax];
        sum.z += values[i].z * low[0];
        sum.w += values[i].w * low[kLanesMax];
        const int32_t vector = at.vector;
        next(at);
        if (at.vector == vector) continue;
        if (teams == 1) {
          store(vector, sum);
        } else {
          sums()[thread] = sum;
        }
        sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      }
      load(at, values);
    }
    if (teams == 1) return;
    __syncthreads();
    const int32_t count = end - begin;
    if (thread >= count) return;
    sum = sums()[thread];
    for (int32_t i = 1; i < teams; ++i) add_scaled(sum, sums()[i * count + thread], 1.0F);
    store(begin + thread, sum);
  }
};

// All threads of the block, behind a barrier: its parts have been written.
template <int kN, typename SharedT>
__device__ inline void join_few_rows(const Params& params, SharedT& shared, int32_t lane,
                                     int32_t thread) {
  if (thread < 2 && shared.rows[thread].num_parts > 0) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(params.workspace.counters +
                                                                 shared.rows[thread].first_lane)
                 : "memory");
  }
#pragma unroll 1
  for (int32_t i = 0; i < 2; ++i) {
    const SharedRow row = shared.rows[i];
    if (row.num_parts == 0) continue;
    constexpr int kVectors = FewJoin<kN, SharedT>::kVectors;
    const int32_t part = lane - row.first_lane;
    const int32_t begin = kVectors * part / row.num_parts;
    const int32_t end = kVectors * (part + 1) / row.num_parts;
    const int32_t teams = max(1, (2 * kGroupThreads) / (end - begin));
    const FewJoin<kN, SharedT> join{.params = params,
                                    .shared = shared,
                                    .row = row,
                                    .thread = thread,
                                    .begin = begin,
                                    .end = end,
                                    .teams = teams,
                                    .team = teams == 1 ? 0 : thread / (end - begin)};
    const auto first = join.first();
    if (thread == 0) {
      const int32_t all_there = shared.all_there[i];
      wait_for_parts(params, params.workspace.counters + row.first_lane,
                     [=](int32_t seen) { return seen >= all_there; });
    }
    __syncthreads();
    join.run(first);
  }
}

}  // namespace
}  // namespace nanocp::cuda
