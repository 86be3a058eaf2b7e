// Weighted sums back to the rows' instances, then sum, residual and norm of the own rows. All
// blocks run at once (one per multiprocessor at most), so that blocks that wait do not keep others
// from sending.
#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/expert_exchange.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kCombineThreads = 256;
constexpr int kChunksMax = 4;  // of 8 values, of one thread: 8192 values a row
constexpr uint32_t kAllLanes = 0xffffffffU;

__device__ int32_t owner_of(const CombineArgs& args, int32_t expert) {
  return static_cast<int32_t>(static_cast<int64_t>(expert) * args.exchange.num_instances /
                              args.num_experts);
}

__device__ const int32_t* topk_of_row(const CombineArgs& args, int64_t row_id) {
  return heap_at<const int32_t>(args.exchange, args.exchange.self, args.exchange.offsets.topk_idx) +
         row_id * args.exchange.topk;
}

// sums += the results of the experts here for 8 values of a row, in order of its choices.
__device__ void add_local(const CombineArgs& args, int64_t row_id, int32_t chunk,
                          float (&sums)[8]) {
  const ExchangeView& exchange = args.exchange;
  const int32_t* assignments = args.assignment_of + row_id * exchange.topk;
  const float* weights =
      heap_at<const float>(exchange, exchange.self, exchange.offsets.topk_weights) +
      row_id * exchange.topk;
  for (int32_t k = 0; k < exchange.topk; ++k) {
    const int32_t at = assignments[k];
    if (at < 0) continue;
    const auto* y = static_cast<const Bf16x8*>(args.y);
    y[static_cast<int64_t>(at) * (exchange.hidden / 8) + chunk].add_to(sums, __ldcg(weights + k));
  }
}

__device__ bool has_local(const CombineArgs& args, int64_t row_id) {
  const int32_t* assignments = args.assignment_of + row_id * args.exchange.topk;
  bool any = false;
  for (int32_t k = 0; k < args.exchange.topk; ++k) any = any || assignments[k] >= 0;
  return any;
}

__device__ void return_sums(const CombineArgs& args) {
  const ExchangeView& exchange = args.exchange;
  const int32_t* counts =
      heap_at<const int32_t>(exchange, exchange.self, exchange.offsets.dispatch_count);
  int32_t skipped = 0;  // rows of earlier sources: blocks go on where those ended
  for (int32_t source = 0; source < exchange.num_instances; ++source) {
    if (source == exchange.self) continue;
    const int32_t count = min(max(__ldcg(counts + source), 0), exchange.max_rows);
    const int32_t first =
        (static_cast<int32_t>(blockIdx.x) - skipped % static_cast<int32_t>(gridDim.x) +
         static_cast<int32_t>(gridDim.x)) %
        static_cast<int32_t>(gridDim.x);
    skipped += count;
    auto* target = heap_at<Bf16x8>(exchange, source, exchange.offsets.combine);
    for (int32_t row = first; row < count; row += static_cast<int32_t>(gridDim.x)) {
      const int64_t row_id = static_cast<int64_t>(source) * exchange.max_rows + row;
      if (!has_local(args, row_id)) continue;
      const int64_t slot = static_cast<int64_t>(exchange.self) * exchange.max_rows + row;
      for (int32_t chunk = static_cast<int32_t>(threadIdx.x); chunk < exchange.hidden / 8;
           chunk += kCombineThreads) {
        float sums[8] = {};
        add_local(args, row_id, chunk, sums);
        Bf16x8 packed;
        packed.set(sums);
        target[slot * (exchange.hidden / 8) + chunk] = packed;
      }
    }
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

// 8 values of what all instances return for an own row, each instance once.
__device__ void add_returned(const CombineArgs& args, int32_t row, int32_t chunk,
                             float (&sums)[8]) {
  const ExchangeView& exchange = args.exchange;
  const int64_t row_id = static_cast<int64_t>(exchange.self) * exchange.max_rows + row;
  const int32_t* topk = topk_of_row(args, row_id);
  add_local(args, row_id, chunk, sums);
  if (exchange.num_instances == 1) return;
  const auto* slots = heap_at<const uint4>(exchange, exchange.self, exchange.offsets.combine);
  for (int32_t k = 0; k < exchange.topk; ++k) {
    const int32_t from = owner_of(args, topk[k]);
    bool done = from == exchange.self;
    for (int32_t earlier = 0; earlier < k; ++earlier) {
      done = done || owner_of(args, topk[earlier]) == from;
    }
    if (done) continue;
    const int64_t slot = static_cast<int64_t>(from) * exchange.max_rows + row;
    const uint4 raw = __ldcg(slots + slot * (exchange.hidden / 8) + chunk);
    reinterpret_cast<const Bf16x8&>(raw).add_to(sums, 1.0F);
  }
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

__device__ void finish_row(const CombineArgs& args, int32_t row) {
  const int32_t chunks = args.exchange.hidden / 8;
  auto* residual =
      reinterpret_cast<float4*>(args.residual) + static_cast<int64_t>(row) * chunks * 2;
  float values[kChunksMax][8];
  float squares = 0.0F;
#pragma unroll
  for (int i = 0; i < kChunksMax; ++i) {
    const int32_t chunk = static_cast<int32_t>(threadIdx.x) + i * kCombineThreads;
    if (chunk >= chunks) continue;
    float sums[8] = {};
    add_returned(args, row, chunk, sums);
    if (args.shared != nullptr) {
      static_cast<const Bf16x8*>(args.shared)[static_cast<int64_t>(row) * chunks + chunk].add_to(
          sums, 1.0F);
    }
    float4* at = residual + chunk * 2;
    const float4 low = at[0];
    const float4 high = at[1];
    const float old[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      values[i][j] = old[j] + sums[j];
      squares += values[i][j] * values[i][j];
    }
    at[0] = make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
    at[1] = make_float4(values[i][4], values[i][5], values[i][6], values[i][7]);
  }
  const float mean = block_sum(squares) / static_cast<float>(args.exchange.hidden);
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
  const ExchangeView& exchange = args.exchange;
  if (exchange.num_instances > 1) {
    const uint64_t epoch = number_of(args.epoch);
    return_sums(args);
    if (is_last_to_finish(args.counter)) {
      for (int32_t to = 0; to < exchange.num_instances; ++to) {
        if (to == exchange.self) continue;
        raise_flag(flag_of(exchange, to, FlagKind::kCombine, exchange.self), epoch);
      }
    }
    // An instance without rows waits too (one block): it must not run ahead of the others.
    if (static_cast<int32_t>(blockIdx.x) >= max(1, args.step.header->num_rows)) return;
    wait_for_sums(args, epoch);
  }
  for (int32_t row = static_cast<int32_t>(blockIdx.x); row < args.step.header->num_rows;
       row += static_cast<int32_t>(gridDim.x)) {
    finish_row(args, row);
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
  int device = 0;
  int num_sms = 0;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaGetDevice(&device), "cudaGetDevice"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device),
                  "cudaDeviceGetAttribute"));
  combine_kernel<<<static_cast<unsigned>(num_sms), kCombineThreads, 0, stream>>>(args);
  return cuda_status(cudaGetLastError(), "launch of the combine");
}

}  // namespace nanocp::cuda
