// Weighted sums back to the rows' instances, then sum, residual and norm of the own rows. A block
// works on whole rows, a thread on 8 of a row's values. Sums travel without flags: a slot holds
// kNotArrived until its sum lies there, and again when it has been read. All blocks run at once, so
// that blocks that wait do not keep others from sending.
#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/expert_exchange.h"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kThreadsMin = 128;  // warps with different tasks
constexpr int kThreadsMax = 1024;
constexpr int kInstancesMax = 256;
constexpr int kTopkMax = 32;
constexpr int kAtOnce = 4;  // loads on their way
constexpr uint32_t kAllLanes = 0xffffffffU;

// What a row's sum is made of, gathered once for all its values.
struct RowParts {
  int32_t assignments[kTopkMax];  // of experts here, in order of the row's choices
  float weights[kTopkMax];
  int32_t num_assignments;
  int32_t returns[kTopkMax];  // other instances that return a sum for it, in that order
  int32_t num_returns;
};

struct CombineShared {
  RowParts own;
  RowParts received;
  int32_t num_rows[kInstancesMax];
  float sums[kThreadsMax / 32];
};

struct Context {
  const CombineArgs& args;
  CombineShared& shared;
  uint8_t* heap;
  uint64_t epoch;
  int32_t chunk;  // 8 values of a row, this thread's
  int32_t num_chunks;
};

// Called by a warp. The row need not exist as long as it is below max_rows. Requires: topk <= 32.
__device__ void gather_parts(const Context& context, int32_t source, int32_t row, RowParts& parts) {
  const CombineArgs& args = context.args;
  const ExchangeView& exchange = args.exchange;
  const auto k = static_cast<int32_t>(threadIdx.x) % 32;
  const bool valid = k < exchange.topk;
  int32_t assignment = -1;
  ExpertChoice choice = {};
  if (valid) {
    const int64_t row_id = static_cast<int64_t>(source) * exchange.max_rows + row;
    assignment = args.assignment_of[row_id * exchange.topk + k];
    choice = load_whole(choices_of(exchange, context.heap, context.epoch, source, row) + k);
  }
  const uint32_t before = (1U << k) - 1U;
  const uint32_t local = __ballot_sync(kAllLanes, assignment >= 0);
  if (assignment >= 0) {
    const int32_t place = __popc(local & before);
    parts.assignments[place] = assignment;
    parts.weights[place] = choice.weight;
  }
  int32_t owner = -1;
  if (source == exchange.self && valid) {
    owner = static_cast<int32_t>(static_cast<int64_t>(choice.expert) * exchange.num_instances /
                                 args.num_experts);
  }
  // Each instance once, at its first expert.
  const uint32_t same = __match_any_sync(kAllLanes, owner);
  const bool first = owner >= 0 && owner != exchange.self && (same & before) == 0;
  const uint32_t firsts = __ballot_sync(kAllLanes, first);
  if (first) parts.returns[__popc(firsts & before)] = owner;
  if (k == 0) {
    parts.num_assignments = __popc(local);
    parts.num_returns = __popc(firsts);
  }
}

// As above, by the first warp, between barriers.
__device__ void gather_next(const Context& context, int32_t source, int32_t row, RowParts& parts) {
  __syncthreads();  // the last row's parts have been read
  if (threadIdx.x < 32) gather_parts(context, source, row, parts);
  __syncthreads();
}

// sums += the results of the experts here for the thread's values of a row.
__device__ void add_local(const Context& context, const RowParts& parts, float (&sums)[8]) {
  const auto* y = static_cast<const uint4*>(context.args.y) + context.chunk;
  for (int32_t base = 0; base < parts.num_assignments; base += kAtOnce) {
    uint4 raw[kAtOnce];
#pragma unroll
    for (int32_t i = 0; i < kAtOnce; ++i) {  // all on their way before the first is used
      if (base + i < parts.num_assignments) {
        raw[i] = y[static_cast<int64_t>(parts.assignments[base + i]) * context.num_chunks];
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

__device__ uint4* sum_slot(const ExchangeView& exchange, uint8_t* heap, int32_t from, int32_t row,
                           int32_t chunk) {
  return reinterpret_cast<uint4*>(heap + exchange.offsets.combine) +
         (static_cast<int64_t>(from) * exchange.max_rows + row) * (exchange.hidden / 8) + chunk;
}

__device__ bool has_arrived(const uint4& sum) {
  return sum.x != kNotArrived && sum.y != kNotArrived && sum.z != kNotArrived &&
         sum.w != kNotArrived;
}

// sums += what the other instances return for the thread's values of an own row. `waits` turns
// false when a wait has failed.
__device__ void add_returned(const Context& context, const RowParts& parts, int32_t row,
                             bool& waits, float (&sums)[8]) {
  const ExchangeView& exchange = context.args.exchange;
  const auto slot_of = [&](int32_t i) {
    return sum_slot(exchange, context.heap, parts.returns[i], row, context.chunk);
  };
  for (int32_t base = 0; base < parts.num_returns; base += kAtOnce) {
    uint4 raw[kAtOnce];
#pragma unroll
    for (int32_t i = 0; i < kAtOnce; ++i) {
      if (base + i < parts.num_returns) raw[i] = load_polled(slot_of(base + i));
    }
#pragma unroll
    for (int32_t i = 0; i < kAtOnce; ++i) {
      if (base + i >= parts.num_returns) continue;
      uint4* slot = slot_of(base + i);
      if (waits && !has_arrived(raw[i])) {
        // All before this one have been made, so that the last epoch seen is known.
        waits = wait_until(context.epoch, exchange.wait, WaitPurpose::kCombine,
                           parts.returns[base + i], [&] {
                             raw[i] = load_polled(slot);
                             return has_arrived(raw[i]) ? context.epoch : context.epoch - 1;
                           });
      }
      *slot = make_uint4(kNotArrived, kNotArrived, kNotArrived, kNotArrived);
      reinterpret_cast<const Bf16x8&>(raw[i]).add_to(sums, 1.0F);
    }
  }
}

__device__ void return_row(const Context& context, int32_t source, int32_t row) {
  const RowParts& parts = context.shared.received;
  if (parts.num_assignments == 0 || context.chunk >= context.num_chunks) return;
  const ExchangeView& exchange = context.args.exchange;
  float sums[8] = {};
  add_local(context, parts, sums);
  Bf16x8 packed;
  packed.set(sums);
  store_whole(sum_slot(exchange, exchange.base[source], exchange.self, row, context.chunk),
              reinterpret_cast<const uint4&>(packed));
}

__device__ float block_sum(float value, float (&sums)[kThreadsMax / 32]) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  __syncthreads();  // the last row's sums have been read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < blockDim.x / 32 ? sums[threadIdx.x % 32] : 0.0F;
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// residual and x of an own row. What lies here is summed up before the wait for the others.
__device__ void finish_row(const Context& context, int32_t row, bool& waits) {
  const CombineArgs& args = context.args;
  const RowParts& parts = context.shared.own;
  const bool active = context.chunk < context.num_chunks;
  const int64_t at = static_cast<int64_t>(row) * context.num_chunks + context.chunk;
  auto* residual = reinterpret_cast<float4*>(args.residual) + at * 2;
  const auto* norm = reinterpret_cast<const float4*>(args.norm_weight) + context.chunk * 2;
  float values[8] = {};
  float4 weights[2] = {};
  float squares = 0.0F;
  if (active) {
    const float4 low = residual[0];
    const float4 high = residual[1];
    const float old[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    for (int j = 0; j < 8; ++j) values[j] = old[j];
    add_local(context, parts, values);
    if (args.shared != nullptr) {
      static_cast<const Bf16x8*>(args.shared)[at].add_to(values, 1.0F);
    }
    weights[0] = norm[0];
    weights[1] = norm[1];
    add_returned(context, parts, row, waits, values);
    for (int j = 0; j < 8; ++j) squares += values[j] * values[j];
    residual[0] = make_float4(values[0], values[1], values[2], values[3]);
    residual[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
  const float mean =
      block_sum(squares, context.shared.sums) / static_cast<float>(args.exchange.hidden);
  const float scale = rsqrtf(mean + args.eps);
  if (!active) return;
  const auto& factors = reinterpret_cast<const float(&)[8]>(weights);
  float normed[8];
  for (int j = 0; j < 8; ++j) normed[j] = values[j] * scale * factors[j];
  Bf16x8 packed;
  packed.set(normed);
  static_cast<Bf16x8*>(args.x)[at] = packed;
}

// Rows are shared out over the blocks in a way that does not depend on how many there are: those of
// the p-th instance from here (0: the own ones) begin at block num_blocks * p / num_instances.
__device__ int32_t first_row(const ExchangeView& exchange, int32_t p) {
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const int32_t row = static_cast<int32_t>(blockIdx.x) - blocks * p / exchange.num_instances;
  return row < 0 ? row + blocks : row;
}

// The instance whose first rows come nearest before this block.
__device__ int32_t nearest_other(const ExchangeView& exchange) {
  int32_t nearest = 1;
  for (int32_t p = 2; p < exchange.num_instances; ++p) {
    if (first_row(exchange, p) < first_row(exchange, nearest)) nearest = p;
  }
  return nearest;
}

__global__ void __launch_bounds__(kThreadsMax)
    combine_kernel(const __grid_constant__ CombineArgs args) {
  __shared__ CombineShared shared;
  cudaTriggerProgrammaticLaunchCompletion();
  const ExchangeView& exchange = args.exchange;
  const int32_t num_rows = args.step.header->num_rows;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto blocks = static_cast<int32_t>(gridDim.x);
  const Context context = {.args = args,
                           .shared = shared,
                           .heap = exchange.base[exchange.self],
                           .epoch = number_of(args.epoch),
                           .chunk = thread,
                           .num_chunks = exchange.hidden / 8};
  const bool has_others = exchange.num_instances > 1;
  const int32_t nearest = has_others ? nearest_other(exchange) : 0;
  const auto source_of = [&](int32_t p) { return (exchange.self + p) % exchange.num_instances; };
  cudaGridDependencySynchronize();
  // The first own row and the first received one at once, the latter before it is known to exist.
  const int32_t own_row = first_row(exchange, 0);
  if (thread / 32 == 0 && has_others && first_row(exchange, nearest) < exchange.max_rows) {
    gather_parts(context, source_of(nearest), first_row(exchange, nearest), shared.received);
  } else if (thread / 32 == 1 && own_row < num_rows) {
    gather_parts(context, exchange.self, own_row, shared.own);
  } else if (thread / 32 >= 2) {
    for (int32_t i = thread - 64; i < exchange.num_instances;
         i += static_cast<int32_t>(blockDim.x) - 64) {
      const RowCount count = load_whole(row_count_of(exchange, context.heap, context.epoch, i));
      shared.num_rows[i] =
          count.epoch >= context.epoch ? min(count.num_rows, exchange.max_rows) : 0;
    }
  }
  __syncthreads();
  const int32_t num_others = args.part == ExchangePart::kMerge ? 0 : exchange.num_instances - 1;
  for (int32_t i = 0, p = nearest; i < num_others; ++i) {
    const int32_t source = source_of(p);
    for (int32_t row = first_row(exchange, p); row < shared.num_rows[source]; row += blocks) {
      if (i > 0 || row >= blocks) gather_next(context, source, row, shared.received);
      return_row(context, source, row);
    }
    p = p == exchange.num_instances - 1 ? 1 : p + 1;
  }
  if (args.part == ExchangePart::kReturn) return;
  bool waits = true;
  for (int32_t row = own_row; row < num_rows; row += blocks) {
    if (row >= blocks) gather_next(context, exchange.self, row, shared.own);
    finish_row(context, row, waits);
  }
}

}  // namespace

Status launch_combine(const CombineArgs& args, cudaStream_t stream) {
  const ExchangeView& exchange = args.exchange;
  if (exchange.hidden % 8 != 0 || exchange.hidden > kThreadsMax * 8) {
    return unsupported(
        "the combine kernel covers hidden sizes that are multiples of 8 up to 8192, "
        "not " +
        std::to_string(exchange.hidden));
  }
  if (exchange.topk > kTopkMax || exchange.num_instances > kInstancesMax) {
    return unsupported("the combine kernel covers up to 32 experts a row and 256 instances, not " +
                       std::to_string(exchange.topk) + " and " +
                       std::to_string(exchange.num_instances));
  }
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  const int32_t threads = std::max(threads_of_row(exchange.hidden), kThreadsMin);
  const int64_t rows = int64_t{exchange.num_instances} * exchange.max_rows;
  // One multiprocessor may still be held by the plan when blocks are placed.
  const int64_t blocks = std::min<int64_t>(int64_t{num_sms - 1} * (kThreadsMax / threads), rows);
  return launch_overlapped(combine_kernel,
                           dim3(static_cast<unsigned>(std::max<int64_t>(1, blocks))), threads, args,
                           stream, "the combine");
}

}  // namespace nanocp::cuda
