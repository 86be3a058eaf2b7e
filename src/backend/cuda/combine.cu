// Weighted sums back to the rows' instances, then sum, residual and norm of the own rows. All
// blocks run at once (one per multiprocessor at most), so that blocks that wait do not keep others
// from sending.
#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kCombineThreads = 256;
constexpr int kChunksMax = 4;  // of 8 values, of one thread: 8192 values a row
constexpr int kTopkMax = 32;
constexpr int kAtOnce = 8;  // loads on their way
constexpr uint32_t kAllLanes = 0xffffffffU;

// What a row's sum is made of, gathered once for all its values.
struct RowParts {
  int32_t assignments[kTopkMax];  // of experts here, in order of the row's choices
  float weights[kTopkMax];
  int32_t num_assignments;
  int32_t returns[kTopkMax];  // other instances that return a sum for it, in that order
  int32_t num_returns;
};

// The first warp fills the parts; a barrier follows. Requires: topk <= 32.
__device__ void gather_parts(const CombineArgs& args, int64_t row_id, bool own, RowParts& parts) {
  const ExchangeView& exchange = args.exchange;
  __syncthreads();  // the last row's parts have been read
  if (threadIdx.x < 32) {
    const auto k = static_cast<int32_t>(threadIdx.x);
    const bool valid = k < exchange.topk;
    const int64_t at = row_id * exchange.topk + k;
    const int32_t assignment = valid ? args.assignment_of[at] : -1;
    const uint32_t local = __ballot_sync(kAllLanes, assignment >= 0);
    if (assignment >= 0) {
      const int32_t place = __popc(local & ((1U << k) - 1U));
      parts.assignments[place] = assignment;
      parts.weights[place] =
          __ldcg(heap_at<const float>(exchange, exchange.self, exchange.offsets.topk_weights) + at);
    }
    int32_t owner = -1;
    if (own && valid) {
      const int32_t expert =
          __ldcg(heap_at<const int32_t>(exchange, exchange.self, exchange.offsets.topk_idx) + at);
      owner = static_cast<int32_t>(static_cast<int64_t>(expert) * exchange.num_instances /
                                   args.num_experts);
    }
    // Each instance once, at its first expert.
    const uint32_t same = __match_any_sync(kAllLanes, owner);
    const bool first = owner >= 0 && owner != exchange.self && (same & ((1U << k) - 1U)) == 0;
    const uint32_t firsts = __ballot_sync(kAllLanes, first);
    if (first) parts.returns[__popc(firsts & ((1U << k) - 1U))] = owner;
    if (k == 0) {
      parts.num_assignments = __popc(local);
      parts.num_returns = __popc(firsts);
    }
  }
  __syncthreads();
}

// sums += the results of the experts here for 8 values of a row.
__device__ void add_local(const CombineArgs& args, const RowParts& parts, int32_t chunk,
                          float (&sums)[8]) {
  const auto* y = static_cast<const uint4*>(args.y) + chunk;
  const int32_t chunks = args.exchange.hidden / 8;
  for (int32_t base = 0; base < parts.num_assignments; base += kAtOnce) {
    uint4 raw[kAtOnce];
#pragma unroll
    for (int32_t i = 0; i < kAtOnce; ++i) {  // all on their way before the first is used
      if (base + i < parts.num_assignments) {
        raw[i] = y[static_cast<int64_t>(parts.assignments[base + i]) * chunks];
      }
    }
#pragma unroll
    for (int32_t i = 0; i < kAtOnce; ++i) {
      if (base + i < parts.num_assignments) {
        reinterpret_cast<const Bf16x8&>(raw[i]).add_to(sums, parts.weights[base + i]);
      }
    }
  }
}

// 8 values of what the other instances return for an own row.
__device__ void add_returned(const CombineArgs& args, const RowParts& parts, int32_t row,
                             int32_t chunk, float (&sums)[8]) {
  const ExchangeView& exchange = args.exchange;
  const auto* slots = heap_at<const uint4>(exchange, exchange.self, exchange.offsets.combine);
  for (int32_t i = 0; i < parts.num_returns; ++i) {
    const int64_t slot = static_cast<int64_t>(parts.returns[i]) * exchange.max_rows + row;
    const uint4 raw = __ldcg(slots + slot * (exchange.hidden / 8) + chunk);
    reinterpret_cast<const Bf16x8&>(raw).add_to(sums, 1.0F);
  }
}

__device__ void return_row(const CombineArgs& args, int32_t source, int32_t row, RowParts& parts) {
  const ExchangeView& exchange = args.exchange;
  gather_parts(args, static_cast<int64_t>(source) * exchange.max_rows + row, false, parts);
  if (parts.num_assignments == 0) return;
  const int32_t chunks = exchange.hidden / 8;
  auto* target = heap_at<Bf16x8>(exchange, source, exchange.offsets.combine) +
                 (static_cast<int64_t>(exchange.self) * exchange.max_rows + row) * chunks;
  for (int32_t chunk = static_cast<int32_t>(threadIdx.x); chunk < chunks;
       chunk += kCombineThreads) {
    float sums[8] = {};
    add_local(args, parts, chunk, sums);
    Bf16x8 packed;
    packed.set(sums);
    target[chunk] = packed;
  }
}

// Rows of the other instances, shared out over the blocks. The last block that had some raises the
// flags at all of them; without rows block 0 does.
__device__ void return_rows(const CombineArgs& args, uint64_t epoch, RowParts& parts) {
  const ExchangeView& exchange = args.exchange;
  const int32_t* counts =
      heap_at<const int32_t>(exchange, exchange.self, exchange.offsets.dispatch_count);
  const auto block = static_cast<int32_t>(blockIdx.x);
  const auto blocks = static_cast<int32_t>(gridDim.x);
  int32_t total = 0;
  for (int32_t source = 0; source < exchange.num_instances; ++source) {
    if (source == exchange.self) continue;
    const int32_t count = min(max(__ldcg(counts + source), 0), exchange.max_rows);
    for (int32_t row = (block - total % blocks + blocks) % blocks; row < count; row += blocks) {
      return_row(args, source, row, parts);
    }
    total += count;
  }
  const int32_t num_senders = max(1, min(total, blocks));
  if (block >= num_senders) return;
  if (!is_last_to_finish(args.counter, static_cast<uint32_t>(num_senders))) return;
  for (int32_t to = 0; to < exchange.num_instances; ++to) {
    if (to == exchange.self) continue;
    set_flag(flag_of(exchange, to, FlagKind::kCombine, exchange.self), epoch);
  }
}

__device__ void wait_for_sums(const CombineArgs& args, uint64_t epoch) {
  const ExchangeView& exchange = args.exchange;
  for (int32_t from = static_cast<int32_t>(threadIdx.x); from < exchange.num_instances;
       from += kCombineThreads) {
    if (from == exchange.self) continue;
    wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kCombine, from), epoch, exchange.wait,
                  WaitPurpose::kCombine, from);
  }
  __syncthreads();
}

__device__ float block_sum(float value) {
  __shared__ float sums[kCombineThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  __syncthreads();  // the last row's sums have been read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0.0F;
  for (const float sum : sums) total += sum;
  return total;
}

// residual and x of an own row. What lies here is summed up before the wait for the others.
__device__ void finish_row(const CombineArgs& args, int32_t row, uint64_t epoch, bool waits,
                           RowParts& parts) {
  const ExchangeView& exchange = args.exchange;
  const int32_t chunks = exchange.hidden / 8;
  gather_parts(args, static_cast<int64_t>(exchange.self) * exchange.max_rows + row, true, parts);
  auto* residual =
      reinterpret_cast<float4*>(args.residual) + static_cast<int64_t>(row) * chunks * 2;
  float values[kChunksMax][8];
#pragma unroll
  for (int i = 0; i < kChunksMax; ++i) {
    const int32_t chunk = static_cast<int32_t>(threadIdx.x) + i * kCombineThreads;
    if (chunk >= chunks) continue;
    const float4 low = residual[chunk * 2];
    const float4 high = residual[chunk * 2 + 1];
    const float old[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int j = 0; j < 8; ++j) values[i][j] = old[j];
    add_local(args, parts, chunk, values[i]);
    if (args.shared != nullptr) {
      static_cast<const Bf16x8*>(args.shared)[static_cast<int64_t>(row) * chunks + chunk].add_to(
          values[i], 1.0F);
    }
  }
  if (waits) wait_for_sums(args, epoch);
  float squares = 0.0F;
#pragma unroll
  for (int i = 0; i < kChunksMax; ++i) {
    const int32_t chunk = static_cast<int32_t>(threadIdx.x) + i * kCombineThreads;
    if (chunk >= chunks) continue;
    add_returned(args, parts, row, chunk, values[i]);
#pragma unroll
    for (int j = 0; j < 8; ++j) squares += values[i][j] * values[i][j];
    residual[chunk * 2] = make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
    residual[chunk * 2 + 1] = make_float4(values[i][4], values[i][5], values[i][6], values[i][7]);
  }
  const float mean = block_sum(squares) / static_cast<float>(exchange.hidden);
  const float scale = rsqrtf(mean + args.eps);
#pragma unroll
  for (int i = 0; i < kChunksMax; ++i) {
    const int32_t chunk = static_cast<int32_t>(threadIdx.x) + i * kCombineThreads;
    if (chunk >= chunks) continue;
    float normed[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) normed[j] = values[i][j] * scale * args.norm_weight[chunk * 8 + j];
    Bf16x8 packed;
    packed.set(normed);
    static_cast<Bf16x8*>(args.x)[static_cast<int64_t>(row) * chunks + chunk] = packed;
  }
}

__global__ void __launch_bounds__(kCombineThreads)
    combine_kernel(const __grid_constant__ CombineArgs args) {
  __shared__ RowParts parts;
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const ExchangeView& exchange = args.exchange;
  const int32_t num_rows = args.step.header->num_rows;
  const auto blocks = static_cast<int32_t>(gridDim.x);
  // Own rows from the last block on, so that they and received ones meet different blocks.
  const int32_t first = blocks - 1 - static_cast<int32_t>(blockIdx.x);
  bool waits = exchange.num_instances > 1;
  uint64_t epoch = 0;
  if (waits) {
    epoch = number_of(args.epoch);
    if (args.part != ExchangePart::kMerge) return_rows(args, epoch, parts);
    if (args.part == ExchangePart::kReturn) return;
    // An instance without rows waits too (one block): it must not run ahead of the others.
    if (num_rows == 0 && first == 0) wait_for_sums(args, epoch);
  }
  for (int32_t row = first; row < num_rows; row += blocks) {
    finish_row(args, row, epoch, waits, parts);
    waits = false;
  }
}

}  // namespace

Status launch_combine(const CombineArgs& args, cudaStream_t stream) {
  if (args.exchange.hidden % 8 != 0 || args.exchange.hidden > kChunksMax * kCombineThreads * 8) {
    return unsupported(
        "the combine kernel covers hidden sizes that are multiples of 8 up to 8192, "
        "not " +
        std::to_string(args.exchange.hidden));
  }
  if (args.exchange.topk > kTopkMax) {
    return unsupported("the combine kernel covers up to 32 experts a row, not " +
                       std::to_string(args.exchange.topk));
  }
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return launch_overlapped(combine_kernel, dim3(static_cast<unsigned>(num_sms)), kCombineThreads,
                           args, stream, "the combine");
}

}  // namespace nanocp::cuda
