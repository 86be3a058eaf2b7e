// Device code of mla_decode.cu: the attend kernel for up to 32 heads where the cache holds codes,
// sm_90a.
#pragma once

#include "backend/cuda/mla_few_code_producer.cuh"

namespace nanocp::cuda {
namespace {
namespace few_codes {

template <int kN>
struct FewComputer : FewProducts<FewShared<kN>> {
  using Base = FewProducts<FewShared<kN>>;
  using Base::attend, Base::head, Base::kOwn, Base::kRegs, Base::total, Base::write_result;
  using Base::max, Base::out, Base::params, Base::shared, Base::sum, Base::thread;

  // As vectors of two heads and two columns, which the threads have.
  __device__ void write_part_values(int32_t lane, bool begins_here) const {
    const int32_t slot = partial_slot(params, lane, begins_here, 0);
    auto* to = reinterpret_cast<uint4*>(params.workspace.partial_out) +
               static_cast<int64_t>(slot) * (kN * kLatentDim / 4) + thread;
#pragma unroll
    for (int j = 0; j < kRegs / 4; ++j) {
#pragma unroll
      for (int c = 0; c < kValueChunks; ++c) {
        const float* from = out[c] + j * 4;
        store_values(to + (j * kValueChunks + c) * kGroupThreads,
                     {from[0], from[1], from[2], from[3]}, shared.launch);
      }
    }
  }
  __device__ void write_part_stats(int32_t lane, bool begins_here) const {
    if (thread >= 4) return;
#pragma unroll
    for (int o = 0; o < kOwn; ++o) {
      store_stats(code_part_stats<kN>(params, lane, begins_here, head(o)), max[o], sum[o],
                  shared.launch);
    }
  }

  __device__ void run(const Stretch& stretch, int32_t lane) {
    Segment segment;
    segment.start(stretch);
    int32_t number = 0;
    for (int32_t s = 0; segment.left > 0; ++s, segment.next(params)) {
      const int32_t last = segment.tile + segment.count - 1;
      const bool begins_here = segment.tile == 0;
      const bool is_part = !begins_here || segment.count < segment.span.num_tiles;
      uint32_t* soon = is_part ? part_soon(params, lane, begins_here) : nullptr;
      const auto say_soon = [&] {
        if (soon != nullptr && thread == 0) store_soon(soon, shared.launch);
      };
      attend(number, number + segment.count,
             min(kTileTokens, segment.span.token_end - last * kTileTokens), s, say_soon);
      total(s & 1);
      if (!is_part) {
        write_result(segment.info.row);
      } else {
        write_part_values(lane, begins_here);
        write_part_stats(lane, begins_here);
      }
      number += segment.count;
    }
  }
};

// All of a warpgroup, from the registers that a kernel for codes starts with.
template <int kCount>
__device__ void set_registers() {
  if constexpr (kCount > kFewCodeRegisters) {
    take_registers<kCount>();
  } else {
    give_registers<kCount>();
  }
}

template <int kN>
__global__ void __launch_bounds__(kFewCodeThreads, 1)
    attend_few_kernel(const __grid_constant__ Params params) {
  using SharedT = FewShared<kN>;
  extern __shared__ __align__(1024) uint8_t raw[];
  auto& shared = *reinterpret_cast<SharedT*>(raw);
  const auto lane = static_cast<int32_t>(blockIdx.x);
  const Stretch stretch = params.workspace.stretches[lane];
  // Not behind a look at the stretch.
  const int32_t first_block =
      params.workspace.stretches[lane].first_blocks[threadIdx.x % kTileBoxes];
  if (threadIdx.x == 0) init_few_barriers(shared);
  if (threadIdx.x == kGroupThreads) prefetch_tensor_map(params.q_map);
  const int32_t warp = __shfl_sync(0xffffffffU, static_cast<int32_t>(threadIdx.x) / 32, 0);
  const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
  if (warp == 2 * kGroupThreads / 32 - 1 && thread >= kGroupThreads - 2) {
    read_shared_row(params, shared, lane, thread % 2);
  }
  __syncthreads();
  const auto joiner = static_cast<int32_t>(threadIdx.x) - kGroupThreads;  // those that spread
  if (warp >= (kGroupThreads + kSpreadThreads) / 32) {
    set_registers<SharedT::kAskRegisters>();
    if (thread < 32) {
      ask_few<FewProducer<SharedT>>(params, shared, stretch, first_block, thread);
    }
    return;  // all that it asked for has arrived when the others are done
  }
  if (warp >= kGroupThreads / 32) {
    set_registers<SharedT::kSpreadRegisters>();
    serve_few(params, shared, stretch, joiner);
  } else {
    set_registers<SharedT::kComputeRegisters>();
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    if (stretch.count > 0) {
      FewComputer<kN>{{.params = params, .shared = shared, .thread = thread}}.run(stretch, lane);
      arrive_threads(kPartsBarrier, kGroupThreads + kSpreadThreads);
    }
    return;
  }
  if (stretch.count == 0) return;
  sync_threads(kPartsBarrier, kGroupThreads + kSpreadThreads);
  join_code_rows<kN>(params, shared, lane, joiner);
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
