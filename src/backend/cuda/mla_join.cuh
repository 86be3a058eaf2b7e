// Device code of mla_decode.cu: the kernel behind the attend kernel. Each of its blocks stands for
// one of the attend grid, and joins the parts of its share of the rows that lie in several lanes:
// a row in many parts keeps as many blocks busy.
#pragma once

#include "backend/cuda/mla_decode_params.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kJoinThreads = 256;
constexpr int kTeamThreads = 16;  // four values each
constexpr int kTeams = kJoinThreads / kTeamThreads;
constexpr int kPieceValues = 4 * kTeamThreads;  // of a head, joined by one team or by all
constexpr int kHeadPieces = kLatentDim / kPieceValues;
constexpr int kTeamParts = kLanesMax / kTeams;  // of a team at most where all share a piece
constexpr int kFewParts = 8;                    // a team does these alone
// Beyond every wait for other instances that a lane may have to sit through.
constexpr uint64_t kPartsTimeoutNs = 120'000'000'000;
constexpr uint32_t kHasLeft =
    1U << 16;  // above it a counter counts lanes that have joined their share

// Teams of a warp go their own ways.
__device__ inline uint32_t team_mask() {
  return 0xffffU << (threadIdx.x % 32 / kTeamThreads * kTeamThreads);
}
__device__ inline float team_max(float value) {
#pragma unroll
  for (int distance = kTeamThreads / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(team_mask(), value, distance));
  }
  return value;
}
__device__ inline float team_sum(float value) {
#pragma unroll
  for (int distance = kTeamThreads / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(team_mask(), value, distance);
  }
  return value;
}
__device__ inline float warp_max(float value) {
  value = team_max(value);
  return fmaxf(value, __shfl_xor_sync(0xffffffffU, value, kTeamThreads));
}
__device__ inline float warp_sum(float value) {
  value = team_sum(value);
  return value + __shfl_xor_sync(0xffffffffU, value, kTeamThreads);
}

__device__ inline void add_scaled(float4& sum, const float4& value, float scale) {
  sum.x += value.x * scale;
  sum.y += value.y * scale;
  sum.z += value.z * scale;
  sum.w += value.w * scale;
}

// The join of a lane's share of one row; all threads of a block.
struct Join {
  const Params& params;
  const SharedRow& row;
  int32_t group;

  __device__ int32_t thread_in_team() const {
    return static_cast<int32_t>(threadIdx.x) % kTeamThreads;
  }
  __device__ int32_t team() const { return static_cast<int32_t>(threadIdx.x) / kTeamThreads; }

  // Of a head in the lists of partial results.
  __device__ int64_t place(int32_t part, int32_t head) const {
    const int32_t slot = partial_slot(params, row.first_lane + part, part == 0, group);
    return static_cast<int64_t>(slot) * params.slot_heads + head;
  }
  __device__ float part_max(int32_t part, int32_t head) const {
    return part < row.num_parts ? params.workspace.partial_max[place(part, head)] : kNothingSeen;
  }
  __device__ float part_sum(int32_t part, int32_t head) const {
    return part < row.num_parts ? params.workspace.partial_sum[place(part, head)] : 0.0F;
  }
  __device__ float4 part_values(int32_t part, int32_t piece) const {
    if (part >= row.num_parts) return make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    const float* values =
        params.workspace.partial_out + place(part, piece / kHeadPieces) * kLatentDim;
    return reinterpret_cast<const float4*>(
        values)[piece % kHeadPieces * kTeamThreads + thread_in_team()];
  }

  __device__ void store(int32_t piece, const float4& value, float log_sum) const {
    const int32_t head = group * kHeads + piece / kHeadPieces;
    if (head >= params.args.config.num_heads) return;
    const int64_t at = static_cast<int64_t>(row.row) * params.args.config.num_heads + head;
    auto* out = reinterpret_cast<float4*>(params.args.out + at * kLatentDim);
    out[piece % kHeadPieces * kTeamThreads + thread_in_team()] = value;
    if (piece % kHeadPieces == 0 && thread_in_team() == 0) params.args.lse[at] = log_sum;
  }

  // Pieces dealt to the teams, as many at once as keep the same number of copies under way.
  template <int kParts>
  __device__ void join_alone(int32_t begin, int32_t end) const {
    constexpr int kAtOnce = kFewParts / kParts;
    for (int32_t first = begin + team(); first < end; first += kTeams * kAtOnce) {
      float4 values[kAtOnce][kParts];
      float maxima[kAtOnce];
      float sums[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int32_t piece = min(first + j * kTeams, end - 1);
#pragma unroll
        for (int i = 0; i < kParts; ++i) values[j][i] = part_values(i, piece);
        maxima[j] = part_max(thread_in_team(), piece / kHeadPieces);
        sums[j] = part_sum(thread_in_team(), piece / kHeadPieces);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const float largest = team_max(maxima[j]);
        const float weight = exp2f(maxima[j] - largest);
        const float total = team_sum(sums[j] * weight);
        float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
        for (int i = 0; i < kParts; ++i) {
          add_scaled(value, values[j][i],
                     __shfl_sync(team_mask(), weight, i, kTeamThreads) / total);
        }
        const int32_t piece = first + j * kTeams;
        if (piece < end) store(piece, value, (largest + log2f(total)) * kLn2);
      }
    }
  }

  // A piece at a time, its parts dealt to the teams. `sums`: [8, kTeamThreads].
  __device__ void join_together(int32_t begin, int32_t end, float4* sums) const {
    const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
    const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
    constexpr int kPerLane = (kLanesMax + 31) / 32;
    for (int32_t piece = begin; piece < end; ++piece) {
      const int32_t head = piece / kHeadPieces;
      float4 values[kTeamParts];
      float weights[kTeamParts];
#pragma unroll
      for (int i = 0; i < kTeamParts; ++i) {
        values[i] = part_values(team() + i * kTeams, piece);
        weights[i] = part_max(team() + i * kTeams, head);
      }
      float maxima[kPerLane];
      float largest = kNothingSeen;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        maxima[i] = part_max(lane + i * 32, head);
        largest = fmaxf(largest, maxima[i]);
      }
      largest = warp_max(largest);
      float total = 0.0F;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        total += part_sum(lane + i * 32, head) * exp2f(maxima[i] - largest);
      }
      total = warp_sum(total);
      float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
      for (int i = 0; i < kTeamParts; ++i) {
        add_scaled(value, values[i], exp2f(weights[i] - largest) / total);
      }
      value.x += __shfl_xor_sync(0xffffffffU, value.x, kTeamThreads);
      value.y += __shfl_xor_sync(0xffffffffU, value.y, kTeamThreads);
      value.z += __shfl_xor_sync(0xffffffffU, value.z, kTeamThreads);
      value.w += __shfl_xor_sync(0xffffffffU, value.w, kTeamThreads);
      if (lane < kTeamThreads) sums[warp * kTeamThreads + lane] = value;
      __syncthreads();
      if (threadIdx.x < kTeamThreads) {
        value = sums[lane];
#pragma unroll
        for (int i = 1; i < kJoinThreads / 32; ++i) {
          add_scaled(value, sums[i * kTeamThreads + lane], 1.0F);
        }
        store(piece, value, (largest + log2f(total)) * kLn2);
      }
      __syncthreads();
    }
  }

  // The share of the `part`-th lane of the row.
  __device__ void run(int32_t part, float4* sums) const {
    const int32_t pieces = params.slot_heads * kHeadPieces;
    const int32_t begin = pieces * part / row.num_parts;
    const int32_t end = pieces * (part + 1) / row.num_parts;
    if (row.num_parts == 2) {
      join_alone<2>(begin, end);
    } else if (row.num_parts <= 4) {
      join_alone<4>(begin, end);
    } else if (row.num_parts <= kFewParts) {
      join_alone<kFewParts>(begin, end);
    } else {
      join_together(begin, end, sums);
    }
  }
};

// Zero and minus infinity for the rows that see nothing, which no tile stands for. Those of other
// instances are waited for too: nothing is returned ahead of its query (comm.flow_control).
__device__ inline void write_neutral_rows(const Params& params) {
  const int32_t num_rows = *params.args.num_rows;
  const int64_t num_heads = params.args.config.num_heads;
  for (auto index = static_cast<int32_t>(blockIdx.x); index < num_rows;
       index += static_cast<int32_t>(gridDim.x)) {
    if (params.workspace.spans[index].num_tiles > 0) continue;
    const AttentionRow row = params.args.rows[index];
    if (threadIdx.x == 0 && is_remote(params, row)) wait_for_source(params, row.source);
    const int64_t first = row.row * num_heads;
    for (int64_t i = threadIdx.x; i < num_heads * kLatentDim; i += kJoinThreads) {
      params.args.out[first * kLatentDim + i] = 0.0F;
    }
    for (int64_t i = threadIdx.x; i < num_heads; i += kJoinThreads) {
      params.args.lse[first + i] = kNothingSeen;
    }
  }
}

__global__ void __launch_bounds__(kJoinThreads, 2)
    join_kernel(const __grid_constant__ Params params) {
  __shared__ float4 sums[kJoinThreads / 32 * kTeamThreads];
  cudaTriggerProgrammaticLaunchCompletion();
  // The attend kernel lets this one begin once all before it has ended: schedule and flags stand.
  const auto lane = static_cast<int32_t>(blockIdx.x) / params.groups;
  const auto group = static_cast<int32_t>(blockIdx.x) % params.groups;
  const SharedRow rows[2] = {params.workspace.shared_rows[2 * lane],
                             params.workspace.shared_rows[2 * lane + 1]};
  write_neutral_rows(params);
  cudaGridDependencySynchronize();
#pragma unroll
  for (const SharedRow& row : rows) {
    if (row.num_parts == 0) continue;
    Join{.params = params, .row = row, .group = group}.run(lane - row.first_lane, sums);
  }
}

}  // namespace
}  // namespace nanocp::cuda
