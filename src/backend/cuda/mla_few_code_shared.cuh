// Device code of mla_decode.cu: the shared memory of the attend kernel for up to 32 heads where the
// cache holds codes.
#pragma once

#include "backend/cuda/mla_few_products.cuh"
#include "backend/cuda/mla_join.cuh"

namespace nanocp::cuda {
namespace {
namespace few_codes {

// One warpgroup computes, two spread codes out and in the end join rows, and the last one asks for
// tiles.
constexpr int kFewCodeThreads = 4 * kGroupThreads;
constexpr int kSpreadThreads = 2 * kGroupThreads;
constexpr int kFewCodeRegisters = 128;  // of a thread, to begin with
// A tile of codes on its way to the ring of parts, as it lies in memory. The next one waits for it
// to be in registers only.
struct FewCodes {
  static constexpr uint32_t kBytes = kTileTokens * kLatentKeyDim;

  alignas(128) uint8_t codes[kBytes];
  alignas(16) uint8_t exponents[kTileTokens];
  uint64_t full;   // counts bytes
  uint64_t empty;  // counts threads that have the codes in registers
};

// `kN`, here and below: the number of heads, padded to 16 or 32.
template <int kN>
struct FewShared {
  static constexpr int kColumns = kN;
  // Of a thread.
  static constexpr int kComputeRegisters = kN == 16 ? 176 : 232;
  static constexpr int kSpreadRegisters = kN == 16 ? 144 : 120;
  static constexpr int kAskRegisters = 40;
  static constexpr uint32_t kQueryChunkBytes = kN * 128;
  static constexpr uint32_t kQueryBytes = kChunks * kQueryChunkBytes;
  static constexpr uint32_t kOtherBytes = 4096 + kN * 4 * 12;  // at most
  static constexpr int kSlots =
      (kSharedBytesMax - kQueryBytes - kQueryChunkBytes - kOtherBytes - FewCodes::kBytes) /
      kPartBytes;
  static_assert(kSlots == 2 * kParts);  // one tile is computed on, one is filled

  alignas(1024) uint8_t q[kQueryBytes];
  alignas(1024) uint8_t ring[kSlots][kPartBytes];
  alignas(1024) uint8_t weights[kQueryChunkBytes];
  FewCodes codes;
  float tile_maxima[4][kN];
  float sums[2][4][kN];
  uint64_t full[kSlots];
  uint64_t empty[kSlots];
  uint64_t q_full;
  uint64_t q_empty;
  SharedRow rows[2];
  uint32_t launch;  // number since the schedule, from 1
};

static_assert(sizeof(FewShared<16>) <= kSharedBytesMax);
static_assert(sizeof(FewShared<kFewHeadsMax>) <= kSharedBytesMax);

template <typename SharedT>
__device__ void init_few_barriers(SharedT& shared) {
  for (int i = 0; i < SharedT::kSlots; ++i) {
    init_barrier(shared_address(&shared.full[i]), kSpreadThreads);
    init_barrier(shared_address(&shared.empty[i]), 4);
  }
  init_barrier(shared_address(&shared.q_full), 1);
  init_barrier(shared_address(&shared.q_empty), 4);
  init_barrier(shared_address(&shared.codes.full), 1);
  init_barrier(shared_address(&shared.codes.empty), kSpreadThreads);
  publish_barriers();
}

}  // namespace few_codes
}  // namespace
}  // namespace nanocp::cuda
