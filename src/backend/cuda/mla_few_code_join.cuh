// Device code of mla_decode.cu: joins the parts of a row that several lanes have, for up to 32
// heads. Each of the lanes adds up a share of the row, straight from memory.
//
// Nothing says that a part is there: whoever reads it sees by each word whether it is of this
// launch. The last bit of a value says whether the launch is odd (the schedule leaves zeros, the
// first launch behind it is odd, and each launch of a step writes the same parts); statistics carry
// its number.
#pragma once

#include "backend/cuda/mla_few_code_shared.cuh"
#include "backend/cuda/mla_few_sums.cuh"

namespace nanocp::cuda {
namespace {
namespace few_codes {

// A part's maximum (base 2) and sum for a head, each beside the number of its launch; lanes
// adjacent.
template <int kN>
__device__ inline uint4* code_part_stats(const Params& params, int32_t lane, bool begins_here,
                                         int32_t head) {
  return params.workspace.code_part_stats + ((begins_here ? kN : 0) + head) * kLanesMax + lane;
}

// Words of 8 bytes each come as a whole.
__device__ inline void store_stats(uint4* to, float max, float sum, uint32_t launch) {
  const uint64_t tag = static_cast<uint64_t>(launch) << 32;
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to),
               "l"(tag | __float_as_uint(max)), "l"(tag | __float_as_uint(sum))
               : "memory");
}
__device__ inline uint4 load_stats(const uint4* from) {
  uint64_t max;
  uint64_t sum;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(max), "=l"(sum)
               : "l"(from)
               : "memory");
  return {static_cast<uint32_t>(max), static_cast<uint32_t>(max >> 32), static_cast<uint32_t>(sum),
          static_cast<uint32_t>(sum >> 32)};
}

// Values lose their last bit to the launch's.
__device__ inline void store_values(uint4* to, const float (&values)[4], uint32_t launch) {
  const auto word = [&](int i) { return (__float_as_uint(values[i]) & ~1U) | (launch & 1); };
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word(0)),
               "r"(word(1)), "r"(word(2)), "r"(word(3))
               : "memory");
}
__device__ inline uint4 load_values(const uint4* from) {
  uint4 value;
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}
__device__ inline bool is_of_launch(const uint4& value, uint32_t launch) {
  const uint32_t other = launch ^ 1U;
  return (((value.x ^ other) & (value.y ^ other) & (value.z ^ other) & (value.w ^ other)) & 1) != 0;
}

// One thread. The counter of the lane where a row begins is zero when the step begins, and the
// lane raises it when it has seen all parts: those who wrote them have read it by then.
template <typename SharedT>
__device__ inline void number_launch(const Params& params, SharedT& shared) {
  const SharedRow& row = shared.rows[0].num_parts > 0 ? shared.rows[0] : shared.rows[1];
  if (row.num_parts == 0) return;
  const int32_t before =
      *static_cast<volatile const int32_t*>(params.workspace.counters + row.first_lane);
  shared.launch = static_cast<uint32_t>(before + 1);
}

// Ends waits that last as long as no wait of another lane for another instance may.
struct PartsWait {
  static constexpr uint32_t kLooksAtOnce = 32;  // then pauses between looks
  static constexpr uint32_t kPauseNs = 200;
  uint32_t looks = 0;
  uint64_t begin = 0;

  __device__ void look_again(const Params& params) {
    if (++looks < kLooksAtOnce) return;
    if (looks == kLooksAtOnce) begin = global_time_ns();
    if (global_time_ns() - begin > parts_timeout_ns(params)) __trap();
    __nanosleep(kPauseNs);
  }
};

// A word of each part that says when it is worth looking for it: what is left then takes about as
// long as the word does to arrive.
__device__ inline uint32_t* part_soon(const Params& params, int32_t lane, bool begins_here) {
  return params.workspace.partial_soon + (begins_here ? kLanesMax : 0) + lane;
}
__device__ inline void store_soon(uint32_t* to, uint32_t launch) {
  asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(to), "r"(launch) : "memory");
}

// One warp, while others compute: until all parts of one of the lane's rows come soon. Only those
// few words are looked at meanwhile, which leaves the memory to those who still read.
template <typename SharedT>
__device__ inline void await_parts(const Params& params, const SharedT& shared, int32_t index,
                                   int32_t lane) {
  const SharedRow& row = shared.rows[index];
  PartsWait wait;
  for (int32_t part = lane; part < row.num_parts; part += 32) {
    const uint32_t* from = part_soon(params, row.first_lane + part, part == 0);
    for (;;) {
      uint32_t seen;
      asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(seen) : "l"(from) : "memory");
      if (seen == shared.launch) break;
      wait.look_again(params);
    }
  }
  __syncwarp();
}

// `place`: of two joins at the same time; -1: all threads join one row.
template <int kN, typename SharedT>
struct FewJoin : FewShare<FewJoin<kN, SharedT>, kN> {
  using Base = FewShare<FewJoin<kN, SharedT>, kN>;
  using Base::first_head, Base::for_each, Base::kPerLane, Base::last_head, Base::num_threads;
  using Base::params, Base::row, Base::thread, Base::weigh;
  static constexpr int kPartsAtOnce = kN > 16 ? 5 : 9;
  static constexpr int kVectorsAtOnce = kN > 16 ? 2 : 4;

  SharedT& shared;
  int32_t place;

  __device__ static float value_of(uint32_t word) { return __uint_as_float(word & ~1U); }
  __device__ void sync() const {
    if (place < 0) {
      sync_threads(kJoinAllBarrier, kSpreadThreads);
    } else if (place == 0) {
      sync_threads(kJoinBarrier, kGroupThreads);
    } else {
      sync_threads(kJoinBarrier + 1, kGroupThreads);
    }
  }

  template <int kV, int kP>
  __device__ void forget(FewBatch<kV, kP>& batch) const {
    const uint32_t missing = shared.launch ^ 1U;
#pragma unroll
    for (int v = 0; v < kV; ++v) {
#pragma unroll
      for (int p = 0; p < kP; ++p) batch.values[v][p] = {missing, missing, missing, missing};
    }
  }

  // Asks for what has not come; whether all had.
  template <int kV, int kP>
  __device__ bool look(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    bool all_there = true;
    for_each(batch, vector, part, [&](uint4& value, const uint4* from) {
      if (is_of_launch(value, shared.launch)) return;
      value = load_values(from);
      all_there = false;
    });
    return all_there;
  }
  __device__ bool look(int32_t head, uint4 (&stats)[kPerLane]) const {
    bool all_there = true;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = thread % 32 + i * 32;
      if (part >= row.num_parts) continue;
      if (stats[i].y == shared.launch && stats[i].w == shared.launch) continue;
      stats[i] = load_stats(code_part_stats<kN>(params, row.first_lane + part, part == 0, head));
      all_there = false;
    }
    return all_there;
  }

  template <int kV, int kP>
  __device__ void receive(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    forget(batch);
    PartsWait wait;
    while (!look(batch, vector, part)) wait.look_again(params);
  }

  // Looks for the first values and what all parts count, together; a warp has a head at a time.
  template <int kV, int kP>
  __device__ void receive_first(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    forget(batch);
    int32_t head = first_head();
    PartsWait wait;
    do {
      uint4 stats[kPerLane] = {};
      for (;;) {
        const bool has_values = look(batch, vector, part);
        const bool has_stats = head > last_head() || look(head, stats);
        if (__all_sync(0xffffffffU, has_values && has_stats) != 0) break;
        wait.look_again(params);
      }
      if (head <= last_head()) weigh_parts(head, stats);
      head += num_threads / 32;
    } while (head <= last_head());
  }

  __device__ void weigh_parts(int32_t head, const uint4 (&stats)[kPerLane]) const {
    float maxima[kPerLane];
    float sums[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      maxima[i] = __uint_as_float(stats[i].x);
      sums[i] = __uint_as_float(stats[i].z);
    }
    weigh(head, maxima, sums);
  }
};

// All threads that spread, behind a barrier: nothing is left to do but this. Where the lane
// has parts of two rows each warpgroup joins one of them.
template <int kN, typename SharedT>
__device__ inline void join_code_rows(const Params& params, SharedT& shared, int32_t lane,
                                      int32_t thread) {
  using Join = FewJoin<kN, SharedT>;
  static_assert(2 * Join::kBytes <= sizeof(SharedT::ring));
  const bool has_first = shared.rows[0].num_parts > 0;
  const bool has_second = shared.rows[1].num_parts > 0;
  if (!has_first && !has_second) return;
  const int32_t place = has_first && has_second ? thread / kGroupThreads : -1;
  const int32_t num_threads = place < 0 ? kSpreadThreads : kGroupThreads;
  const SharedRow row = shared.rows[place < 0 ? (has_first ? 0 : 1) : place];
  const int32_t part = lane - row.first_lane;
  const int32_t begin = Join::kVectors * part / row.num_parts;
  const int32_t end = Join::kVectors * (part + 1) / row.num_parts;
  auto* weights = reinterpret_cast<uint8_t*>(shared.ring) + (place > 0 ? Join::kBytes : 0);
  const Join join{{.params = params,
                   .row = row,
                   .weights = reinterpret_cast<float*>(weights),
                   .thread = thread % num_threads,
                   .num_threads = num_threads,
                   .begin = begin,
                   .end = end,
                   .teams = max(1, num_threads / (end - begin))},
                  shared,
                  place};
  join.run();
  if (join.thread == 0 && begin == 0) {
    params.workspace.counters[row.first_lane] = static_cast<int32_t>(shared.launch);
  }
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
