// Device code of mla_decode.cu: rows that lie in several lanes are joined at the end of the attend
// kernel, by the warpgroup that has asked for tiles. Each lane of such a row takes a share of its
// values once all parts are there: a row in many parts keeps as many blocks busy.
//
// So blocks wait for others of the grid. All of them run at the same time: the grid has one block
// for each multiprocessor, and kernels behind it begin once all blocks have been started.
#pragma once

#include "backend/cuda/mla_producer.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kPieceValues = 64;  // of a head; a share is a run of pieces
constexpr int kHeadPieces = kLatentDim / kPieceValues;
constexpr int kPieceVectors = kPieceValues / 4;
constexpr uint32_t kPieceBytes = kPieceValues * 4;
// In the place of queries and tiles: a share of all parts at most, then sums of teams.
constexpr uint32_t kShareBytesMax = (kHeads * kHeadPieces + kLanesMax) * kPieceBytes;
static_assert(kShareBytesMax + kGroupThreads * 16 <= sizeof(Shared::q) + sizeof(Shared::tiles));
constexpr int32_t kHasJoined = 1 << 16;  // in a counter above the parts: lanes that have seen all
constexpr uint64_t kPartsTimeoutNs = 10'000'000'000;
constexpr uint32_t kLooksToClock = 64;

__device__ inline void add_scaled(float4& sum, const float4& value, float scale) {
  sum.x += value.x * scale;
  sum.y += value.y * scale;
  sum.z += value.z * scale;
  sum.w += value.w * scale;
}

// Other blocks may have to sit through as many waits for other instances first.
__device__ inline uint64_t parts_timeout_ns(const Params& params) {
  const ExchangeView& exchange = params.args.exchange;
  if (exchange.num_instances <= 1) return kPartsTimeoutNs;
  return kPartsTimeoutNs + exchange.num_instances * exchange.wait.timeout_ns;
}

// One thread: until a counter of parts satisfies `is_enough`.
template <typename IsEnough>
__device__ inline void wait_for_parts(const Params& params, const int32_t* counter,
                                      const IsEnough& is_enough) {
  const uint64_t begin = global_time_ns();
  for (uint32_t looks = 1;; ++looks) {
    int32_t seen;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    if (is_enough(seen)) return;
    if (looks % kLooksToClock != 0) continue;
    if (global_time_ns() - begin > parts_timeout_ns(params)) __trap();
  }
}

// A lane's share of one row; all threads of the warpgroup.
struct Join {
  const Params& params;
  Shared& shared;
  const SharedRow& row;
  int32_t group;
  int32_t thread;
  int32_t begin;  // of the share, in pieces of the heads of the group
  int32_t end;

  // Of a head in the lists of partial results.
  __device__ int64_t place(int32_t part, int32_t head) const {
    const int32_t slot = partial_slot(params, row.first_lane + part, part == 0, group);
    return static_cast<int64_t>(slot) * params.slot_heads + head;
  }

  // Asks for the share of all parts.
  __device__ void fetch() const {
    const int32_t vectors = (end - begin) * kPieceVectors;
    for (int32_t i = thread; i < row.num_parts * vectors; i += kGroupThreads) {
      const float* from = params.workspace.partial_out + place(i / vectors, 0) * kLatentDim;
      copy_16_async(shared_address(shared.q) + static_cast<uint32_t>(i) * 16,
                    from + begin * kPieceValues + i % vectors * 4, true);
    }
    commit_copies();
  }

  // Of the parts of all heads of the share; a warp for each head.
  __device__ void weigh_parts() const {
    const int32_t lane = thread % 32;
    constexpr int kPerLane = (kLanesMax + 31) / 32;
    const int32_t first_head = begin / kHeadPieces;
    for (int32_t head = first_head + thread / 32; head * kHeadPieces < end;
         head += kGroupThreads / 32) {
      float maxima[kPerLane];
      float sums[kPerLane];
      float largest = kNothingSeen;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int32_t part = lane + i * 32;
        const bool exists = part < row.num_parts;
        maxima[i] =
            exists ? __ldcg(params.workspace.partial_max + place(part, head)) : kNothingSeen;
        sums[i] = exists ? __ldcg(params.workspace.partial_sum + place(part, head)) : 0.0F;
        largest = fmaxf(largest, maxima[i]);
      }
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
      }
      float total = 0.0F;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        maxima[i] = exp2f(maxima[i] - largest);
        total += sums[i] * maxima[i];
      }
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        total += __shfl_xor_sync(0xffffffffU, total, distance);
      }
      // The exact division calls a function that needs more registers than this warpgroup has.
      const float inverse = __fdividef(1.0F, total);
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int32_t part = lane + i * 32;
        if (part < row.num_parts) {
          shared.part_weights[(head - first_head) * row.num_parts + part] = maxima[i] * inverse;
        }
      }
      if (lane == 0 && head * kHeadPieces >= begin)
        store_lse(head, (largest + log2f(total)) * kLn2);
    }
  }

  __device__ int64_t result_head(int32_t head) const {
    return static_cast<int64_t>(row.row) * params.args.config.num_heads + group * kHeads + head;
  }
  __device__ bool exists(int32_t head) const {
    return group * kHeads + head < params.args.config.num_heads;
  }
  __device__ void store_lse(int32_t head, float value) const {
    if (exists(head)) params.args.lse[result_head(head)] = value;
  }
  __device__ void store(int32_t vector, const float4& value) const {
    const int32_t at = begin * kPieceVectors + vector;
    constexpr int kHeadVectors = kLatentDim / 4;
    const int32_t head = at / kHeadVectors;
    if (!exists(head)) return;
    auto* out = reinterpret_cast<float4*>(params.args.out + result_head(head) * kLatentDim);
    out[at % kHeadVectors] = value;
  }

  // Adds up what has been fetched. A short share is added up by several teams, each of which takes
  // some of the parts.
  __device__ void add_up() const {
    const auto* parts = reinterpret_cast<const float4*>(&shared);
    auto* sums = reinterpret_cast<float4*>(reinterpret_cast<uint8_t*>(&shared) + kShareBytesMax);
    const int32_t vectors = (end - begin) * kPieceVectors;
    const int32_t teams = max(1, kGroupThreads / vectors);
    const int32_t team = teams == 1 ? 0 : thread / vectors;
    for (int32_t at = teams == 1 ? thread : thread % vectors; at < vectors && team < teams;
         at += kGroupThreads) {
      const int32_t head = (begin + at / kPieceVectors) / kHeadPieces - begin / kHeadPieces;
      const float* weights = shared.part_weights + head * row.num_parts;
      float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll 4
      for (int32_t part = team; part < row.num_parts; part += teams) {
        add_scaled(sum, parts[part * vectors + at], weights[part]);
      }
      if (teams == 1) {
        store(at, sum);
      } else {
        sums[thread] = sum;
      }
    }
    if (teams == 1) return;
    sync_threads(kJoinBarrier, kGroupThreads);
    if (thread >= vectors) return;
    float4 sum = sums[thread];
    for (int32_t i = 1; i < teams; ++i) add_scaled(sum, sums[i * vectors + thread], 1.0F);
    store(thread, sum);
  }
};

// One of the rows that the lane has part in, for join_rows.
template <typename SharedT>
__device__ inline void read_shared_row(const Params& params, SharedT& shared, int32_t lane,
                                       int32_t index) {
  shared.rows[index] = params.workspace.shared_rows[2 * lane + index];
}

// All threads of the last warpgroup, when the block's parts have been written.
__device__ inline void join_rows(const Params& params, Shared& shared, int32_t lane, int32_t group,
                                 int32_t thread) {
  const auto counter = [&](const SharedRow& row) {
    return params.workspace.counters + row.first_lane * params.groups + group;
  };
#pragma unroll
  for (const SharedRow& row : shared.rows) {
    if (row.num_parts == 0 || thread != 0) continue;
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter(row)) : "memory");
  }
#pragma unroll
  for (const SharedRow& row : shared.rows) {
    if (row.num_parts == 0) continue;
    const int32_t part = lane - row.first_lane;
    const int32_t pieces = params.slot_heads * kHeadPieces;
    const Join join = {.params = params,
                       .shared = shared,
                       .row = row,
                       .group = group,
                       .thread = thread,
                       .begin = pieces * part / row.num_parts,
                       .end = pieces * (part + 1) / row.num_parts};
    if (thread == 0) {
      wait_for_parts(params, counter(row),
                     [&](int32_t seen) { return seen % kHasJoined >= row.num_parts; });
    }
    sync_threads(kJoinBarrier, kGroupThreads);
    if (join.begin < join.end) {
      join.fetch();
      join.weigh_parts();
      wait_copies<0>();
      sync_threads(kJoinBarrier, kGroupThreads);
      join.add_up();
    }
    // The last that has seen the count clears it.
    if (thread == 0 && atomicAdd(counter(row), kHasJoined) / kHasJoined == row.num_parts - 1) {
      *counter(row) = 0;
    }
  }
}

// Zero and minus infinity for the rows that see nothing, which no tile stands for. Those of other
// instances are waited for too: nothing is returned ahead of its query (comm.flow_control).
// `thread` of `num_threads` of a block.
__device__ inline void write_neutral_rows(const Params& params, int32_t thread,
                                          int32_t num_threads) {
  const int32_t num_rows = *params.args.num_rows;
  const int64_t num_heads = params.args.config.num_heads;
  for (auto index = static_cast<int32_t>(blockIdx.x); index < num_rows;
       index += static_cast<int32_t>(gridDim.x)) {
    if (params.workspace.spans[index].num_tiles > 0) continue;
    const AttentionRow row = params.args.rows[index];
    if (thread == 0 && is_remote(params, row)) wait_for_source(params, row.source);
    const int64_t first = row.row * num_heads;
    for (int64_t i = thread; i < num_heads * kLatentDim; i += num_threads) {
      params.args.out[first * kLatentDim + i] = 0.0F;
    }
    for (int64_t i = thread; i < num_heads; i += num_threads) {
      params.args.lse[first + i] = kNothingSeen;
    }
  }
}

}  // namespace
}  // namespace nanocp::cuda
