// Device code of mla_decode.cu: joins the parts of a row that several lanes have, for up to 32
// heads where the cache holds bf16. A counter says how many parts are there.
#pragma once

#include "backend/cuda/mla_few_sums.cuh"

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

template <int kN>
struct FewJoin : FewShare<FewJoin<kN>, kN> {
  using Base = FewShare<FewJoin<kN>, kN>;
  using Base::first_head, Base::for_each, Base::kPerLane, Base::last_head, Base::num_threads;
  using Base::params, Base::row, Base::thread, Base::weigh;
  static constexpr int kPartsAtOnce = 9;
  static constexpr int kVectorsAtOnce = 4;

  __device__ static float value_of(uint32_t word) { return __uint_as_float(word); }
  __device__ void sync() const { __syncthreads(); }

  template <int kV, int kP>
  __device__ void receive(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    for_each(batch, vector, part, [](uint4& value, const uint4* from) { value = __ldcg(from); });
  }

  __device__ void load_stats(int32_t head, float (&maxima)[kPerLane],
                             float (&sums)[kPerLane]) const {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = thread % 32 + i * 32;
      if (part >= row.num_parts) continue;
      const float2 stats = __ldcg(part_stats<kN>(params, row.first_lane + part, part == 0, head));
      maxima[i] = stats.x;
      sums[i] = stats.y;
    }
  }

  // What is needed first is asked for first.
  template <int kV, int kP>
  __device__ void receive_first(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    float maxima[kPerLane];
    float sums[kPerLane];
    int32_t head = first_head();
    load_stats(head, maxima, sums);
    receive(batch, vector, part);
    weigh(head, maxima, sums);
    for (head += num_threads / 32; head <= last_head(); head += num_threads / 32) {
      load_stats(head, maxima, sums);
      weigh(head, maxima, sums);
    }
  }
};

// All threads of the block, behind a barrier: its parts have been written.
template <int kN, typename SharedT>
__device__ inline void join_few_rows(const Params& params, SharedT& shared, int32_t lane,
                                     int32_t thread) {
  static_assert(FewJoin<kN>::kBytes <= sizeof(SharedT::ring));
  if (thread < 2 && shared.rows[thread].num_parts > 0) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(params.workspace.counters +
                                                                 shared.rows[thread].first_lane)
                 : "memory");
  }
#pragma unroll 1
  for (int32_t i = 0; i < 2; ++i) {
    const SharedRow row = shared.rows[i];
    if (row.num_parts == 0) continue;
    constexpr int kVectors = FewJoin<kN>::kVectors;
    constexpr int kThreadsAll = 2 * kGroupThreads;
    const int32_t part = lane - row.first_lane;
    const int32_t begin = kVectors * part / row.num_parts;
    const int32_t end = kVectors * (part + 1) / row.num_parts;
    const FewJoin<kN> join{{.params = params,
                            .row = row,
                            .weights = reinterpret_cast<float*>(shared.ring),
                            .thread = thread,
                            .num_threads = kThreadsAll,
                            .begin = begin,
                            .end = end,
                            .teams = max(1, kThreadsAll / (end - begin))}};
    if (thread == 0) {
      const int32_t all_there = shared.all_there[i];
      wait_for_parts(params, params.workspace.counters + row.first_lane,
                     [=](int32_t seen) { return seen >= all_there; });
    }
    __syncthreads();
    join.run();
  }
}

}  // namespace
}  // namespace nanocp::cuda
