// Device code of mla_decode.cu: joins the parts of a row that several lanes have, for up to 32
// heads. Each of the lanes adds up a share of the row, straight from memory.
//
// Nothing says that a part is there: whoever reads it sees by each word whether it is of this
// launch. The last bit of a value says whether the launch is odd (the schedule leaves zeros, the
// first launch behind it is odd, and each launch of a step writes the same parts); statistics carry
// its number.
#pragma once

#include "backend/cuda/mla_few_code_shared.cuh"

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
__device__ inline float value_of(uint32_t word) {
  return __uint_as_float(word & ~1U);
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

// A lane's share of one row: vectors of two heads and two columns, as FewComputer writes them.
template <int kN, typename SharedT>
struct FewJoin {
  static constexpr int kVectors = kN * kLatentDim / 4;
  static constexpr int kEightHeads = kLatentDim / 64 * kGroupThreads;  // vectors of eight heads
  static constexpr int kPerLane = (kLanesMax + 31) / 32;               // parts of a head
  static constexpr int kHelpers = 4;  // who add up one sum of teams
  static constexpr uint32_t kBytes = (kN * kLanesMax + kSpreadThreads * 4) * sizeof(float);
  static_assert(2 * kBytes <= sizeof(SharedT::ring));

  const Params& params;
  SharedT& shared;
  const SharedRow row;
  int32_t place;   // of two that join at the same time; -1: all threads join one row
  int32_t thread;  // of those that join
  int32_t begin;
  int32_t end;
  int32_t teams;  // each adds up some of the parts of a short share

  __device__ int32_t num_threads() const { return place < 0 ? kSpreadThreads : kGroupThreads; }
  __device__ float* weights() const {
    return reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(shared.ring) +
                                    (place > 0 ? kBytes : 0));
  }
  __device__ float4* sums() const { return reinterpret_cast<float4*>(weights() + kN * kLanesMax); }
  __device__ void sync() const {
    if (place < 0) {
      sync_threads(kJoinAllBarrier, kSpreadThreads);
    } else if (place == 0) {
      sync_threads(kJoinBarrier, kGroupThreads);
    } else {
      sync_threads(kJoinBarrier + 1, kGroupThreads);
    }
  }

  // What a thread adds up at once: vectors as far apart as there are threads, and some parts of
  // each, `teams` apart.
  template <int kV, int kP>
  struct Batch {
    uint4 values[kV][kP];
    int32_t num_vectors;
    int32_t num_parts;
  };

  template <int kV, int kP>
  __device__ void start(Batch<kV, kP>& batch, int32_t vector, int32_t part) const {
    batch.num_vectors = vector < end ? (end - vector + num_threads() - 1) / num_threads() : 0;
    batch.num_parts = (row.num_parts - part + teams - 1) / teams;
    const uint32_t missing = shared.launch ^ 1U;
#pragma unroll
    for (int v = 0; v < kV; ++v) {
#pragma unroll
      for (int p = 0; p < kP; ++p) batch.values[v][p] = {missing, missing, missing, missing};
    }
  }

  // Asks for what has not come; whether all had.
  template <int kV, int kP>
  __device__ bool look(Batch<kV, kP>& batch, int32_t vector, int32_t part) const {
    const auto* from = reinterpret_cast<const uint4*>(params.workspace.partial_out) +
                       (2 * (row.first_lane + part) * kVectors + vector);
    bool all_there = true;
#pragma unroll
    for (int p = 0; p < kP; ++p) {
      const int32_t begins_there = part + p == 0 ? kVectors : 0;
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        if (v >= batch.num_vectors || p >= batch.num_parts) continue;
        if (is_of_launch(batch.values[v][p], shared.launch)) continue;
        batch.values[v][p] =
            load_values(from + p * teams * 2 * kVectors + begins_there + v * num_threads());
        all_there = false;
      }
    }
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

  // What the parts of a head count, by one warp.
  __device__ void weigh(int32_t head, const uint4 (&stats)[kPerLane]) const {
    const int32_t lane = thread % 32;
    float largest = kNothingSeen;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + i * 32 < row.num_parts) largest = fmaxf(largest, __uint_as_float(stats[i].x));
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
    }
    float factors[kPerLane] = {};
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + i * 32 >= row.num_parts) continue;
      factors[i] = exp2f(__uint_as_float(stats[i].x) - largest);
      total += factors[i] * __uint_as_float(stats[i].z);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      total += __shfl_xor_sync(0xffffffffU, total, distance);
    }
    const float inverse = __fdividef(1.0F, total);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = lane + i * 32;
      if (part < row.num_parts) weights()[head * kLanesMax + part] = factors[i] * inverse;
    }
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t vector = head / 8 * kEightHeads + head % 8 / 2;  // the head's first
    if (lane == 0 && vector >= begin && vector < end && head < num_heads) {
      params.args.lse[static_cast<int64_t>(row.row) * num_heads + head] =
          (largest + log2f(total)) * kLn2;
    }
  }

  // Looks for the first values and what all parts count, together; a warp has a head at a time.
  template <int kV, int kP>
  __device__ void receive_first(Batch<kV, kP>& batch, int32_t vector, int32_t part) const {
    const int32_t last = (end - 1) / kEightHeads * 8 + 7;
    int32_t head = begin / kEightHeads * 8 + thread / 32;
    PartsWait wait;
    do {
      uint4 stats[kPerLane] = {};
      for (;;) {
        const bool has_values = look(batch, vector, part);
        const bool has_stats = head > last || look(head, stats);
        if (__all_sync(0xffffffffU, has_values && has_stats) != 0) break;
        wait.look_again(params);
      }
      if (head <= last) weigh(head, stats);
      head += num_threads() / 32;
    } while (head <= last);
  }

  __device__ static int32_t head_of(int32_t vector) {
    return vector / kEightHeads * 8 + vector % 4 * 2;
  }
  // One of the four values of a vector.
  __device__ void store(int32_t vector, int32_t index, float value) const {
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t head = head_of(vector) + index % 2;
    const int32_t column = vector % kEightHeads / kGroupThreads * 64 +
                           vector % kGroupThreads / 32 * 16 + vector % 32 / 4 + index / 2 * 8;
    if (head >= num_heads) return;
    params.args.out[(static_cast<int64_t>(row.row) * num_heads + head) * kLatentDim + column] =
        value;
  }

  template <int kV, int kP>
  __device__ void add_up() const {
    const int32_t team = teams == 1 ? 0 : thread / (end - begin);
    int32_t vector = begin + (teams == 1 ? thread : thread % (end - begin));
    if (team >= teams) vector = end;
    int32_t part = team < teams ? team : 0;
    Batch<kV, kP> batch;
    start(batch, vector, part);
    receive_first(batch, vector, part);
    sync();
    float4 totals[kV] = {};
    while (vector < end) {
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        const float* low = weights() + head_of(vector + v * num_threads()) * kLanesMax + part;
#pragma unroll
        for (int p = 0; p < kP; ++p) {
          if (v >= batch.num_vectors || p >= batch.num_parts) continue;
          const float* of_head = low + p * teams;
          totals[v].x += value_of(batch.values[v][p].x) * of_head[0];
          totals[v].y += value_of(batch.values[v][p].y) * of_head[kLanesMax];
          totals[v].z += value_of(batch.values[v][p].z) * of_head[0];
          totals[v].w += value_of(batch.values[v][p].w) * of_head[kLanesMax];
        }
      }
      part += kP * teams;
      if (part >= row.num_parts) {
        finish(totals, vector, batch.num_vectors);
        part = team;
        vector += kV * num_threads();
        if (vector >= end || teams > 1) break;
      }
      start(batch, vector, part);
      PartsWait wait;
      while (!look(batch, vector, part)) wait.look_again(params);
    }
    if (teams == 1) return;
    sync();
    add_teams();
  }

  template <int kV>
  __device__ void finish(float4 (&totals)[kV], int32_t vector, int32_t num_vectors) const {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      if (v >= num_vectors) continue;
      if (teams > 1) {
        sums()[thread] = totals[v];
        continue;
      }
      store(vector + v * num_threads(), 0, totals[v].x);
      store(vector + v * num_threads(), 1, totals[v].y);
      store(vector + v * num_threads(), 2, totals[v].z);
      store(vector + v * num_threads(), 3, totals[v].w);
      totals[v] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
  }

  __device__ void add_teams() const {
    const auto* all = reinterpret_cast<const float*>(sums());
    const int32_t count = 4 * (end - begin);
    const int32_t helper = thread % kHelpers;
    for (int32_t i = thread / kHelpers; i < (count + 7) / 8 * 8; i += num_threads() / kHelpers) {
      float sum = 0.0F;
      for (int32_t t = helper; t < teams && i < count; t += kHelpers) sum += all[t * count + i];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      if (helper == 0 && i < count) store(begin + i / 4, i % 4, sum);
    }
  }

  __device__ void run() const {
    // As many at once as there are registers for.
    constexpr int kShort = kN > 16 ? 5 : 9;
    constexpr int kLong = kN > 16 ? 2 : 4;
    if (teams > 1) {
      add_up<1, kShort>();
    } else if (row.num_parts == 2) {
      add_up<kLong, 2>();
    } else {
      add_up<(kLong + 1) / 2, 3>();
    }
    if (thread == 0 && begin == 0) {
      params.workspace.counters[row.first_lane] = static_cast<int32_t>(shared.launch);
    }
  }
};

// All threads that spread, behind a barrier: nothing is left to do but this. Where the lane
// has parts of two rows each warpgroup joins one of them.
template <int kN, typename SharedT>
__device__ inline void join_code_rows(const Params& params, SharedT& shared, int32_t lane,
                                      int32_t thread) {
  const bool has_first = shared.rows[0].num_parts > 0;
  const bool has_second = shared.rows[1].num_parts > 0;
  if (!has_first && !has_second) return;
  const int32_t place = has_first && has_second ? thread / kGroupThreads : -1;
  const int32_t num_threads = place < 0 ? kSpreadThreads : kGroupThreads;
  const SharedRow row = shared.rows[place < 0 ? (has_first ? 0 : 1) : place];
  constexpr int kVectors = FewJoin<kN, SharedT>::kVectors;
  const int32_t part = lane - row.first_lane;
  const int32_t begin = kVectors * part / row.num_parts;
  const int32_t end = kVectors * (part + 1) / row.num_parts;
  FewJoin<kN, SharedT>{.params = params,
                       .shared = shared,
                       .row = row,
                       .place = place,
                       .thread = thread % num_threads,
                       .begin = begin,
                       .end = end,
                       .teams = max(1, num_threads / (end - begin))}
      .run();
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
