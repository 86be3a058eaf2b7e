// A stable counting sort in one block. Each warp takes a run of the choices, 32 at a time: lanes
// that chose the same expert find one another by ballots, and counters of each (warp, expert) in
// shared memory hold what came before. One walk counts; sums over warps and experts follow; a
// second walk places. The first walk takes each choice as it arrives: the kernel need not wait for
// the dispatch before it, since choices carry their epoch, the own ones too.
#include "backend/cuda/expert_plan.h"

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kPlanThreads = 1024;
constexpr int kPlanWarps = kPlanThreads / 32;
constexpr int kExpertsMax = kPlanThreads;
constexpr int kSourcesMax = 256;
constexpr int kBatch = 4;  // choices of a lane under way at once
// Numbers of choices that are put in order in shared memory before they are written.
constexpr int kScatteredMax = 512;
constexpr int kStagedMax = 4096;
constexpr int kCountersAtOnce = 8;
constexpr int32_t kNotHere = -1;
constexpr uint32_t kAllLanes = 0xffffffffU;

struct PlanShared {
  int32_t choices[kSourcesMax];           // of each source
  int32_t source_begin[kSourcesMax + 1];  // of its choices, in the line of all
  int32_t expert_begin[kExpertsMax + 1];  // of its assignments
  int32_t staged[kStagedMax];             // row_of
  uint64_t warp_sums[kPlanWarps];
};

// Some choices of a lane.
struct Batch {
  int32_t expert[kBatch];  // local, kNotHere: not owned here
  int32_t source[kBatch];  // kNotHere: past the end
  int32_t index[kBatch];   // among the source's choices
  uint32_t peers[kBatch];  // lanes with the same expert
};

// The choices of a warp.
struct Run {
  int32_t begin;
  int32_t end;
};

// Lays the sources' choices out in a line once their numbers are there; returns its length.
__device__ int32_t line_up_sources(const ExpertPlanArgs& args, uint8_t* heap, uint64_t epoch,
                                   PlanShared& shared) {
  const ExchangeView& exchange = args.exchange;
  const auto source = static_cast<int32_t>(threadIdx.x);
  if (source < exchange.num_instances) {
    const RowCount* at = row_count_of(exchange, heap, epoch, source);
    RowCount count = {};
    const bool arrived = wait_until(epoch, exchange.wait, WaitPurpose::kDispatch, source, [&] {
      count = load_whole(at);
      return count.epoch;
    });
    shared.choices[source] =
        arrived ? min(max(count.num_rows, 0), exchange.max_rows) * exchange.topk : 0;
  }
  __syncthreads();
  if (source <= exchange.num_instances) {
    int32_t before = 0;
    for (int32_t i = 0; i < source; ++i) before += shared.choices[i];
    shared.source_begin[source] = before;
  }
  __syncthreads();
  return shared.source_begin[exchange.num_instances];
}

// Waits for what has not arrived.
__device__ void load_batch(const ExpertPlanArgs& args, uint8_t* heap, uint64_t epoch,
                           const PlanShared& shared, const Run& run, int32_t base, Batch& batch) {
  const ExchangeView& exchange = args.exchange;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int32_t source = 0;
  const ExpertChoice* from[kBatch];
  ExpertChoice choices[kBatch];
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const int32_t at = base + j * 32 + lane;
    batch.expert[j] = batch.source[j] = kNotHere;
    if (at >= run.end) continue;
    while (at >= shared.source_begin[source + 1]) ++source;
    batch.source[j] = source;
    batch.index[j] = at - shared.source_begin[source];
    from[j] = choices_of(exchange, heap, epoch, source, 0) + batch.index[j];
    choices[j] = load_whole(from[j]);
  }
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (batch.source[j] == kNotHere) continue;
    if (choices[j].epoch < epoch) {
      wait_until(epoch, exchange.wait, WaitPurpose::kDispatch, batch.source[j], [&] {
        choices[j] = load_whole(from[j]);
        return choices[j].epoch;
      });
    }
    const int32_t expert = choices[j].expert - args.expert_begin;
    if (expert >= 0 && expert < args.num_experts) batch.expert[j] = expert;
  }
}

__device__ void place_choice(const ExpertPlanArgs& args, const Batch& batch, int j,
                             int32_t assignment, int32_t* row_of) {
  if (batch.source[j] == kNotHere) return;
  const int64_t first_row = static_cast<int64_t>(batch.source[j]) * args.exchange.max_rows;
  args.lists.assignment_of[first_row * args.exchange.topk + batch.index[j]] = assignment;
  if (assignment == kNotHere) return;
  row_of[assignment] = static_cast<int32_t>(first_row) + batch.index[j] / args.exchange.topk;
}

// Finds the lanes of the warp that have the same expert; `bits` bits tell all experts and kNotHere
// apart.
__device__ void find_peers(Batch& batch, int32_t num_chunks, int32_t bits) {
#pragma unroll
  for (uint32_t& peers : batch.peers) peers = kAllLanes;
  for (int32_t bit = 0; bit < bits; ++bit) {
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      if (j >= num_chunks) break;
      const bool is_set = (batch.expert[j] >> bit & 1) != 0;
      const uint32_t with = __ballot_sync(kAllLanes, is_set);
      batch.peers[j] &= is_set ? with : ~with;
    }
  }
}

// Adds up this warp's choices in its counters; kPlace: and places them, where the counters began
// with what other warps have before.
template <bool kPlace>
__device__ void walk(const ExpertPlanArgs& args, uint8_t* heap, uint64_t epoch,
                     const PlanShared& shared, const Run& run, int32_t* counters, int32_t* row_of,
                     Batch& batch) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t bits = 32 - __clz(args.num_experts);
  // A run of one batch still has it from the first walk.
  const bool has_batch = kPlace && run.end - run.begin <= kBatch * 32;
  for (int32_t base = run.begin; base < run.end; base += kBatch * 32) {
    if (!has_batch) {
      load_batch(args, heap, epoch, shared, run, base, batch);
      find_peers(batch, (run.end - base + 31) / 32, bits);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      if (base + j * 32 >= run.end) break;
      const int32_t expert = batch.expert[j];
      const uint32_t peers = batch.peers[j];
      const int32_t before = expert == kNotHere ? 0 : counters[expert];
      if constexpr (kPlace) {
        const int32_t rank = __popc(peers & ((1U << lane) - 1U));
        place_choice(args, batch, j,
                     expert == kNotHere ? kNotHere : shared.expert_begin[expert] + before + rank,
                     row_of);
      }
      __syncwarp();
      if (expert != kNotHere && lane == __ffs(static_cast<int>(peers)) - 1) {
        counters[expert] = before + __popc(peers);
      }
      __syncwarp();
    }
  }
}

// Inclusive sums over the warps up to `num_warps`, which alone return something of use.
__device__ uint64_t scan_warps(uint64_t value, int num_warps, uint64_t (&warp_sums)[kPlanWarps]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint64_t own = value;
  if (warp < num_warps) {
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const uint64_t other = __shfl_up_sync(kAllLanes, own, distance);
      if (lane >= distance) own += other;
    }
    if (lane == 31) warp_sums[warp] = own;
  }
  __syncthreads();
  if (warp == 0 || warp >= num_warps) return own;
  const uint64_t sum = lane < warp ? warp_sums[lane] : 0;
  const uint32_t high = __reduce_add_sync(kAllLanes, static_cast<uint32_t>(sum >> 32));
  const uint32_t low = __reduce_add_sync(kAllLanes, static_cast<uint32_t>(sum));
  return own + (static_cast<uint64_t>(high) << 32 | low);
}

// A thread for each expert: turns the warps' counts into what other warps have before, and writes
// the expert's tiles. Returns the number of assignments.
__device__ int32_t place_experts(const ExpertPlanArgs& args, PlanShared& shared, int32_t* counters,
                                 int32_t num_warps) {
  const auto e = static_cast<int32_t>(threadIdx.x);
  int32_t count = 0;
  if (e < args.num_experts) {
    for (int32_t first = 0; first < num_warps; first += kCountersAtOnce) {
      int32_t here[kCountersAtOnce];
#pragma unroll
      for (int i = 0; i < kCountersAtOnce; ++i) {
        here[i] = first + i < num_warps ? counters[(first + i) * args.num_experts + e] : 0;
      }
#pragma unroll
      for (int i = 0; i < kCountersAtOnce; ++i) {
        if (first + i < num_warps) counters[(first + i) * args.num_experts + e] = count;
        count += here[i];
      }
    }
  }
  const int32_t num_scanned = max(1, (args.num_experts + 31) / 32);  // warps that have experts
  const int32_t num_tiles = count == 0 ? 0 : (count + args.tile_rows - 1) / args.tile_rows;
  const uint64_t both = static_cast<uint64_t>(num_tiles) << 32 | static_cast<uint32_t>(count);
  const uint64_t end = scan_warps(both, num_scanned, shared.warp_sums);
  if (e < num_scanned * 32) {
    const int32_t begin = static_cast<int32_t>(end) - count;
    const int32_t tile_begin = static_cast<int32_t>(end >> 32) - num_tiles;
    shared.expert_begin[e] = begin;
    for (int32_t i = 0; i < num_tiles; ++i) {
      const int32_t first = i * args.tile_rows;
      args.lists.tiles[tile_begin + i] = {e, begin + first, min(args.tile_rows, count - first), 0};
    }
    if (e == num_scanned * 32 - 1) {
      *args.lists.num_tiles = tile_begin + num_tiles;
      shared.expert_begin[kExpertsMax] = begin + count;
    }
  }
  __syncthreads();
  return shared.expert_begin[kExpertsMax];
}

// Choices of a warp: few warps first get full batches, which costs less than counters of all warps.
__device__ int32_t run_length(int32_t total) {
  const int32_t of_half = (total + kPlanThreads / 2 - 1) / (kPlanThreads / 2) * 32;
  const int32_t of_all = (total + kPlanThreads - 1) / kPlanThreads * 32;
  return max(32, max(min(of_half, kBatch * 32), of_all));
}

// Called by one warp: the rows that the choices are about.
__device__ void wait_for_rows(const ExchangeView& exchange, uint64_t epoch) {
  for (auto source = static_cast<int32_t>(threadIdx.x) % 32; source < exchange.num_instances;
       source += 32) {
    if (source == exchange.self) continue;
    wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kDispatch, source), epoch,
                  exchange.wait, WaitPurpose::kDispatch, source);
  }
}

__global__ void __launch_bounds__(kPlanThreads, 1)
    plan_kernel(const __grid_constant__ ExpertPlanArgs args) {
  extern __shared__ int32_t counters[];  // [kPlanWarps][num_experts]
  __shared__ PlanShared shared;
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
  int32_t* counters_of_warp = counters + warp * args.num_experts;
  for (auto e = static_cast<int32_t>(threadIdx.x) % 32; e < args.num_experts; e += 32) {
    counters_of_warp[e] = 0;
  }
  uint8_t* heap = args.exchange.base[args.exchange.self];
  const uint64_t epoch = number_of(args.epoch);
  const int32_t total = line_up_sources(args, heap, epoch, shared);
  cudaTriggerProgrammaticLaunchCompletion();  // what follows would only hold GPUs while it waits
  const int32_t length = run_length(total);
  const int32_t num_warps = (total + length - 1) / length;
  const Run run = {min(warp * length, total), min((warp + 1) * length, total)};
  const bool is_staged = total > kScatteredMax && total <= kStagedMax;
  int32_t* row_of = is_staged ? shared.staged : args.lists.row_of;
  Batch batch;
  walk<false>(args, heap, epoch, shared, run, counters_of_warp, row_of, batch);
  __syncthreads();
  const int32_t num_assignments = place_experts(args, shared, counters, num_warps);
  if (warp == kPlanWarps - 1) wait_for_rows(args.exchange, epoch);  // beside the other warps' work
  walk<true>(args, heap, epoch, shared, run, counters_of_warp, row_of, batch);
  if (is_staged) {
    __syncthreads();
    for (auto i = static_cast<int32_t>(threadIdx.x); i < num_assignments; i += kPlanThreads) {
      args.lists.row_of[i] = shared.staged[i];
    }
  }
  // Whoever waits for this kernel waits for the one before it too.
  cudaGridDependencySynchronize();
}

}  // namespace

ExpertPlanSizes expert_plan_sizes(const ExchangeView& exchange, int32_t num_experts,
                                  int32_t tile_rows) {
  const int64_t most =
      static_cast<int64_t>(exchange.num_instances) * exchange.max_rows * exchange.topk;
  return {most, most / tile_rows + num_experts};
}

Status launch_expert_plan(const ExpertPlanArgs& args, cudaStream_t stream) {
  if (args.num_experts < 0 || args.num_experts > kExpertsMax || args.tile_rows < 1 ||
      args.exchange.num_instances > kSourcesMax) {
    return unsupported("the expert plan covers up to " + std::to_string(kExpertsMax) +
                       " experts of a layer on an instance and " + std::to_string(kSourcesMax) +
                       " instances, not " + std::to_string(args.num_experts) + " and " +
                       std::to_string(args.exchange.num_instances));
  }
  const size_t shared_bytes = sizeof(int32_t) * kPlanWarps * static_cast<size_t>(args.num_experts);
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaFuncSetAttribute(plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(sizeof(int32_t)) * kPlanWarps * kExpertsMax),
      "shared memory of the expert plan"));
  if (args.overlaps) {
    return launch_overlapped(plan_kernel, dim3(1), kPlanThreads, args, stream, "the expert plan",
                             shared_bytes);
  }
  plan_kernel<<<1, kPlanThreads, shared_bytes, stream>>>(args);
  return cuda_status(cudaGetLastError(), "launch of the expert plan");
}

}  // namespace nanocp::cuda
