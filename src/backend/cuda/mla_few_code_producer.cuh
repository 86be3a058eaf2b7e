// Device code of mla_decode.cu: the warps that fill shared memory in the attend kernel for up to 32
// heads where the cache holds codes. One asks for tiles and queries, eight spread codes out.
#pragma once

#include "backend/cuda/mla_few_code_join.cuh"

namespace nanocp::cuda {
namespace {
namespace few_codes {

// The warp that asks for tiles and queries.
template <typename SharedT>
struct FewProducer : FewRequests<SharedT> {
  using Base = FewRequests<SharedT>;
  using Base::lane, Base::num_boxes, Base::params, Base::policy, Base::shared;

  __device__ const uint8_t* address_of(const Box& box) const {
    return static_cast<const uint8_t*>(params.args.cache) +
           (box.block * params.args.block_stride + box.token * kLatentKeyDim);
  }

  // Into the second-level cache, which sees what is written to it later.
  __device__ void prefetch(const Box& box) const {
    if (box.block < 0) return;
    prefetch_bulk(address_of(box), static_cast<uint32_t>(params.box_tokens * kLatentKeyDim));
  }

  // What lies behind a row's last block stays as it was; nothing is made of it.
  __device__ void load_tile(int32_t number, const Box& box) const {
    const uint32_t full = shared_address(&shared.codes.full);
    wait_phase(shared_address(&shared.codes.empty), (number + 1) & 1);
    const int32_t num_there = __popc(__ballot_sync(0xffffffffU, box.block >= 0));
    const auto tokens = static_cast<uint32_t>(params.box_tokens);
    if (lane == 0) {
      arrive_expecting(full, static_cast<uint32_t>(num_there) * tokens * (kLatentKeyDim + 1));
    }
    __syncwarp();
    if (box.block < 0) return;
    const uint32_t first = static_cast<uint32_t>(lane) * tokens;
    copy_bulk(shared_address(shared.codes.codes) + first * kLatentKeyDim, address_of(box),
              tokens * kLatentKeyDim, full, policy);
    const auto* exponents = static_cast<const uint8_t*>(params.args.cache) +
                            box.block * params.args.block_stride +
                            int64_t{params.args.config.block_size} * kLatentKeyDim + box.token;
    copy_bulk(shared_address(shared.codes.exponents) + first, exponents, tokens, full, policy);
  }
};

// A warp that turns codes into values: those of eight tokens of each tile. The codes of a whole
// tile wait in registers, so that their place is free for the next. A lane has a piece of 16 codes
// in each chunk of one token; eight lanes meet all banks, in codes and in values.
template <typename SharedT>
struct FewSpreader {
  SharedT& shared;
  int32_t thread;  // of those that spread

  struct Tile {
    uint4 codes[kChunks];
    uint32_t exponent;
    bool in_one;  // for all of the warp
  };

  __device__ int32_t token() const { return thread / 4; }

  // What reads shared memory ends in order. To know the last value is to have all of them, and not
  // before may the next tile be asked for: asking overtakes reads.
  __device__ void load(int32_t number, Tile& tile) const {
    wait_phase(shared_address(&shared.codes.full), number & 1);
    const auto row = static_cast<uint32_t>(token());
    const uint32_t from = shared_address(shared.codes.codes) + row * kLatentKeyDim +
                          static_cast<uint32_t>(thread % 4) * 16;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) tile.codes[c] = load_shared_16(from + c * 64);
    tile.exponent = load_shared_byte(shared_address(shared.codes.exponents) + row);
    tile.in_one = __all_sync(0xffffffffU, tile.exponent <= kOneFactorExponentMax) != 0;
    publish_shared();
    arrive(shared_address(&shared.codes.empty));
  }

  template <bool kInOne>
  __device__ void spread(int32_t number, const Tile& tile) const {
    const uint32_t factor = code_factor<kInOne>(tile.exponent);
    const uint32_t place = static_cast<uint32_t>(token() / 8) * kEightTokens +
                           swizzled_offset(token() % 8, thread % 4 * 2);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int32_t at = number * kParts + p;
      const int32_t slot = at % SharedT::kSlots;
      wait_phase(shared_address(&shared.empty[slot]), (at / SharedT::kSlots + 1) & 1);
      const uint32_t to = shared_address(shared.ring[slot]) + place;
#pragma unroll
      for (int c = 0; c < kPartChunks; ++c) {
        store_codes<kInOne>(to + c * kNextChunk, tile.codes[p * kPartChunks + c], factor);
      }
    }
    publish_shared();  // waits for what has been written, so once for all parts
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      arrive(shared_address(&shared.full[(number * kParts + p) % SharedT::kSlots]));
    }
  }

  __device__ void run(int32_t count) const {
    for (int32_t number = 0; number < count; ++number) {
      Tile tile;
      load(number, tile);
      if (tile.in_one) {
        spread<true>(number, tile);
      } else {
        spread<false>(number, tile);
      }
    }
  }
};

// The threads that spread codes; `thread`: of them. Three of their warps do beside it what is left.
template <typename SharedT>
__device__ void serve_few(const Params& params, SharedT& shared, const Stretch& stretch,
                          int32_t thread) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const bool helps = thread >= 32 && thread < kGroupThreads;
  if (helps) {
    if (thread == kGroupThreads - 1) number_launch(params, shared);
    if (stretch.count > 0) load_first_queries(params, shared, stretch.info, 0, thread - 32);
  }
  FewSpreader<SharedT>{.shared = shared, .thread = thread}.run(stretch.count);
  if (!helps) return;
  write_neutral_rows(params, thread - 32, kIdleThreads);
  const int32_t warp = __shfl_sync(0xffffffffU, thread / 32, 0);
  if (stretch.count > 0 && warp <= 2) await_parts(params, shared, warp - 1, thread % 32);
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
