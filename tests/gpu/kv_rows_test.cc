// New K/V is packed and stored again where the cache's layout says, and nowhere else. Needs a GPU.
#include "backend/cuda/kv_rows.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "backend/device_info.h"
#include "base/random.h"

namespace nanocp::cuda {
namespace {

constexpr int32_t kHeads = 3;
constexpr int32_t kDim = 64;
constexpr int32_t kBlockSize = 16;
constexpr int32_t kBlocks = 4;

// Bytes of the heap that belong to the tokens, by the layout's definition.
std::vector<bool> bytes_of(const CacheRows& rows, const std::vector<int64_t>& slots, size_t size) {
  std::vector<bool> belongs(size, false);
  const bool is_codes = rows.layout.type == CacheType::kE4m3;
  const int64_t width = is_codes ? 1 : 2;
  for (const int64_t slot : slots) {
    for (int part = 0; part < (rows.has_values ? 2 : 1); ++part) {
      const int64_t offset = part == 0 ? rows.layout.k_offset : rows.layout.v_offset;
      const int64_t block = slot / kBlockSize * rows.layout.block_stride;
      const int64_t token = slot % kBlockSize;
      for (int64_t head = 0; head < rows.num_heads; ++head) {
        const int64_t first = block + head * rows.layout.head_stride + token * rows.token_values;
        for (int64_t i = 0; i < rows.token_values * width; ++i) {
          belongs[static_cast<size_t>(offset + first * width + i)] = true;
        }
        const int64_t exponent =
            block + rows.num_heads * rows.layout.head_stride + head * kBlockSize + token;
        if (is_codes) belongs[static_cast<size_t>(offset + exponent)] = true;
      }
    }
  }
  return belongs;
}

void check_round_trip(const CacheRows& rows, size_t size) {
  const std::vector<int64_t> slots = {5, 17, 63, 0, 18};
  Random random(3);
  std::vector<uint8_t> heap(size);
  for (uint8_t& byte : heap) byte = static_cast<uint8_t>(1 + random.below(255));
  const size_t packed_bytes = slots.size() * static_cast<size_t>(cache_row_bytes(rows));
  uint8_t* memory = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&memory), 2 * size + packed_bytes + 256),
            cudaSuccess);
  ASSERT_EQ(cudaMemset(memory, 0, 2 * size + packed_bytes + 256), cudaSuccess);
  auto* device_slots = reinterpret_cast<int64_t*>(memory + 2 * size + packed_bytes);
  ASSERT_EQ(cudaMemcpy(memory, heap.data(), size, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device_slots, slots.data(), slots.size() * sizeof(int64_t),
                       cudaMemcpyHostToDevice),
            cudaSuccess);
  CacheRowsArgs args = {.rows = rows,
                        .heap = memory,
                        .slots = device_slots,
                        .num_rows = static_cast<int32_t>(slots.size()),
                        .packed = memory + 2 * size};
  ASSERT_TRUE(launch_gather_cache_rows(args, nullptr).ok());
  args.heap = memory + size;
  ASSERT_TRUE(launch_scatter_cache_rows(args, nullptr).ok());
  std::vector<uint8_t> copied(size);
  ASSERT_EQ(cudaMemcpy(copied.data(), args.heap, size, cudaMemcpyDeviceToHost), cudaSuccess);
  static_cast<void>(cudaFree(memory));
  const std::vector<bool> belongs = bytes_of(rows, slots, size);
  size_t num_wrong = 0;
  for (size_t i = 0; i < size; ++i) num_wrong += copied[i] == (belongs[i] ? heap[i] : 0) ? 0 : 1;
  EXPECT_EQ(num_wrong, 0U);
}

class KvRows : public testing::Test {
 protected:
  void SetUp() override {
    const auto devices = backend::list_devices();
    if (!devices.ok() || devices->empty()) GTEST_SKIP() << "no GPU";
  }
};

TEST_F(KvRows, KeepTheirPlaceInHeadsAndBlocks) {
  CacheRows rows;
  rows.num_heads = kHeads;
  rows.token_values = kDim;
  rows.has_values = true;
  rows.layout.block_size = kBlockSize;
  rows.layout.head_stride = kBlockSize * kDim;
  rows.layout.block_stride = kHeads * rows.layout.head_stride;
  rows.layout.k_offset = 256;
  rows.layout.v_offset = 256 + kBlocks * rows.layout.block_stride * 2;
  check_round_trip(rows, static_cast<size_t>(256 + 2 * kBlocks * rows.layout.block_stride * 2));
}

TEST_F(KvRows, OfCodesBringTheirExponents) {
  CacheRows rows;
  rows.num_heads = kHeads;
  rows.token_values = kDim;
  rows.has_values = true;
  rows.layout.type = CacheType::kE4m3;
  rows.layout.block_size = kBlockSize;
  rows.layout.head_stride = kBlockSize * kDim;
  rows.layout.block_stride = kHeads * (rows.layout.head_stride + kBlockSize);
  rows.layout.k_offset = 256;
  rows.layout.v_offset = 256 + kBlocks * rows.layout.block_stride;
  check_round_trip(rows, static_cast<size_t>(256 + 2 * kBlocks * rows.layout.block_stride));
}

TEST_F(KvRows, OfLatentsAreOneHead) {
  CacheRows rows;
  rows.num_heads = 1;
  rows.token_values = 576;
  rows.layout.block_size = kBlockSize;
  rows.layout.head_stride = kBlockSize * 576;
  rows.layout.block_stride = rows.layout.head_stride;
  rows.layout.k_offset = 512;
  rows.layout.v_offset = 512;
  check_round_trip(rows, static_cast<size_t>(512 + kBlocks * rows.layout.block_stride * 2));
}

}  // namespace
}  // namespace nanocp::cuda
