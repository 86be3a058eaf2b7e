// Device code of mla_decode.cu: how a lane adds up its share of a row that several lanes have, for
// up to 32 heads, straight from memory. The joins of the two kernels add how they learn that parts
// are there.
#pragma once

#include "backend/cuda/mla_join.cuh"

namespace nanocp::cuda {
namespace {

// What a thread adds up at once: vectors as far apart as there are threads, and some parts of each,
// as many apart as there are teams.
template <int kV, int kP>
struct FewBatch {
  uint4 values[kV][kP];
  int32_t num_vectors;
  int32_t num_parts;
};

// A share: vectors of two heads and two columns, as computers write them. `Own`, the join that
// inherits it, has
//   receive_first(batch, vector, part)  gets the first values and calls `weigh` for all heads;
//   receive(batch, vector, part)        gets others;
//   value_of(word)                      a value of what came;
//   sync()                              for all threads that join.
template <typename Own, int kN>
struct FewShare {
  static constexpr int kVectors = kN * kLatentDim / 4;
  static constexpr int kEightHeads = kLatentDim / 64 * kGroupThreads;  // vectors of eight heads
  static constexpr int kPerLane = (kLanesMax + 31) / 32;               // parts of a head
  static constexpr int kHelpers = 4;  // who add up one sum of teams
  static constexpr int kThreadsMax = 2 * kGroupThreads;
  static constexpr uint32_t kBytes = (kN * kLanesMax + kThreadsMax * 4) * sizeof(float);

  const Params& params;
  const SharedRow row;
  float* weights;  // [kN, kLanesMax] in shared memory; sums of teams behind it
  int32_t thread;  // of those that join
  int32_t num_threads;
  int32_t begin;
  int32_t end;
  int32_t teams;  // each adds up some of the parts of a short share

  __device__ const Own& own() const { return static_cast<const Own&>(*this); }
  __device__ float4* sums() const { return reinterpret_cast<float4*>(weights + kN * kLanesMax); }

  // The heads that the share touches, a warp for each.
  __device__ int32_t first_head() const { return begin / kEightHeads * 8 + thread / 32; }
  __device__ int32_t last_head() const { return (end - 1) / kEightHeads * 8 + 7; }

  // What the parts of a head count, by one warp; their maxima (base 2) and sums, lane by lane.
  __device__ void weigh(int32_t head, const float (&maxima)[kPerLane],
                        const float (&part_sums)[kPerLane]) const {
    const int32_t lane = thread % 32;
    float largest = kNothingSeen;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + i * 32 < row.num_parts) largest = fmaxf(largest, maxima[i]);
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
      factors[i] = exp2f(maxima[i] - largest);
      total += factors[i] * part_sums[i];
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      total += __shfl_xor_sync(0xffffffffU, total, distance);
    }
    const float inverse = __fdividef(1.0F, total);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t part = lane + i * 32;
      if (part < row.num_parts) weights[head * kLanesMax + part] = factors[i] * inverse;
    }
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t vector = head / 8 * kEightHeads + head % 8 / 2;  // the head's first
    if (lane == 0 && vector >= begin && vector < end && head < num_heads) {
      params.args.lse[static_cast<int64_t>(row.row) * num_heads + head] =
          (largest + log2f(total)) * kLn2;
    }
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

  // How much of a batch there is.
  template <int kV, int kP>
  __device__ void start(FewBatch<kV, kP>& batch, int32_t vector, int32_t part) const {
    batch.num_vectors = vector < end ? (end - vector + num_threads - 1) / num_threads : 0;
    batch.num_parts = (row.num_parts - part + teams - 1) / teams;
  }
  // Calls `visit(value, address)` for what there is of a batch.
  template <int kV, int kP, typename Visit>
  __device__ void for_each(FewBatch<kV, kP>& batch, int32_t vector, int32_t part,
                           const Visit& visit) const {
    const auto* from = reinterpret_cast<const uint4*>(params.workspace.partial_out) +
                       (2 * (row.first_lane + part) * kVectors + vector);
#pragma unroll
    for (int p = 0; p < kP; ++p) {
      const int32_t begins_there = part + p == 0 ? kVectors : 0;
#pragma unroll
      for (int v = 0; v < kV; ++v) {
        if (v >= batch.num_vectors || p >= batch.num_parts) continue;
        visit(batch.values[v][p], from + p * teams * 2 * kVectors + begins_there + v * num_threads);
      }
    }
  }

  template <int kV, int kP>
  __device__ void add(float4 (&totals)[kV], const FewBatch<kV, kP>& batch, int32_t vector,
                      int32_t part) const {
#pragma unroll
    for (int v = 0; v < kV; ++v) {
      const float* low = weights + head_of(vector + v * num_threads) * kLanesMax + part;
#pragma unroll
      for (int p = 0; p < kP; ++p) {
        if (v >= batch.num_vectors || p >= batch.num_parts) continue;
        const uint4& value = batch.values[v][p];
        const float* of_head = low + p * teams;
        totals[v].x += Own::value_of(value.x) * of_head[0];
        totals[v].y += Own::value_of(value.y) * of_head[kLanesMax];
        totals[v].z += Own::value_of(value.z) * of_head[0];
        totals[v].w += Own::value_of(value.w) * of_head[kLanesMax];
      }
    }
  }

  template <int kV, int kP>
  __device__ void add_up() const {
    const int32_t team = teams == 1 ? 0 : thread / (end - begin);
    int32_t vector = begin + (teams == 1 ? thread : thread % (end - begin));
    if (team >= teams) vector = end;
    int32_t part = team < teams ? team : 0;
    FewBatch<kV, kP> batch;
    start(batch, vector, part);
    own().receive_first(batch, vector, part);
    own().sync();
    float4 totals[kV] = {};
    while (vector < end) {
      add(totals, batch, vector, part);
      part += kP * teams;
      if (part >= row.num_parts) {
        finish(totals, vector, batch.num_vectors);
        part = team;
        vector += kV * num_threads;
        if (vector >= end || teams > 1) break;
      }
      start(batch, vector, part);
      own().receive(batch, vector, part);
    }
    if (teams == 1) return;
    own().sync();
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
      store(vector + v * num_threads, 0, totals[v].x);
      store(vector + v * num_threads, 1, totals[v].y);
      store(vector + v * num_threads, 2, totals[v].z);
      store(vector + v * num_threads, 3, totals[v].w);
      totals[v] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
  }

  __device__ void add_teams() const {
    const auto* all = reinterpret_cast<const float*>(sums());
    const int32_t count = 4 * (end - begin);
    const int32_t helper = thread % kHelpers;
    for (int32_t i = thread / kHelpers; i < (count + 7) / 8 * 8; i += num_threads / kHelpers) {
      float sum = 0.0F;
#pragma unroll 4
      for (int32_t t = helper; t < teams && i < count; t += kHelpers) sum += all[t * count + i];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      if (helper == 0 && i < count) store(begin + i / 4, i % 4, sum);
    }
  }

  // As many at once as there are registers for.
  __device__ void run() const {
    constexpr int kShort = Own::kPartsAtOnce;
    constexpr int kLong = Own::kVectorsAtOnce;
    if (teams > 1) {
      add_up<1, kShort>();
    } else if (row.num_parts == 2) {
      add_up<kLong, 2>();
    } else {
      add_up<(kLong + 1) / 2, 3>();
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
