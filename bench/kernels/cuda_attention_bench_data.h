// Random shards, queries and caches for the benchmarks of attention.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_prefill.h"
#include "base/random.h"
#include "bench/kernels/cuda_device_array.h"
#include "tensor/kv_format.h"

namespace nanocp {

// The plan of one launch on the host: rows and their shards.
struct Plan {
  std::vector<cuda::AttentionRow> rows;
  std::vector<int32_t> blocks;
  std::vector<int32_t> block_idx;
  std::vector<cuda::PrefillItem> items;  // prefill: the same rows as runs
};

struct Shape {
  int heads, kv_heads, dim, block_size, window;
  cuda::CacheType cache = cuda::CacheType::kBf16;

  tensor::KvFormat format() const {
    return cache == cuda::CacheType::kE4m3 ? tensor::KvFormat::kFp8 : tensor::KvFormat::kBf16;
  }
  int64_t block_bytes() const {
    return kv_heads * block_size * tensor::kv_token_bytes(format(), dim);
  }
};

inline void shuffle_blocks(Plan& plan, Random& random) {
  for (size_t i = plan.blocks.size(); i > 1; --i) {
    std::swap(plan.blocks[i - 1], plan.blocks[random.below(i)]);
  }
}

// Rows that hold random parts of random sequences; blocks of different rows are disjoint.
inline Plan random_plan(const Shape& shape, int num_rows, int max_tokens, Random& random) {
  Plan plan;
  for (int r = 0; r < num_rows; ++r) {
    const auto position = static_cast<int32_t>(random.between(0, max_tokens));
    const auto begin = static_cast<int32_t>(plan.blocks.size());
    const uint64_t keep = random.below(5);  // 0: an empty shard, 4: everything
    for (int32_t i = 0; i <= position / shape.block_size; ++i) {
      if (random.below(4) >= keep) continue;
      plan.block_idx.push_back(i);
      plan.blocks.push_back(static_cast<int32_t>(plan.blocks.size()));
    }
    plan.rows.push_back({r, position, begin, static_cast<int32_t>(plan.blocks.size()) - begin, -1});
  }
  shuffle_blocks(plan, random);
  return plan;
}

// Chunks of up to max_rows tokens, each against a random part of its sequence.
inline Plan random_chunks(const Shape& shape, int num_chunks, int max_rows, int max_tokens,
                          Random& random) {
  Plan plan;
  for (int c = 0; c < num_chunks; ++c) {
    const auto count = static_cast<int32_t>(random.between(1, max_rows));
    const auto first = static_cast<int32_t>(random.between(0, max_tokens));
    const auto begin = static_cast<int32_t>(plan.blocks.size());
    const uint64_t keep = random.below(5);
    for (int32_t i = 0; i <= (first + count - 1) / shape.block_size; ++i) {
      if (random.below(4) >= keep) continue;
      plan.block_idx.push_back(i);
      plan.blocks.push_back(static_cast<int32_t>(plan.blocks.size()));
    }
    const auto num_blocks = static_cast<int32_t>(plan.blocks.size()) - begin;
    plan.items.push_back(
        {static_cast<int32_t>(plan.rows.size()), count, first, begin, num_blocks, -1});
    for (int32_t i = 0; i < count; ++i) {
      const auto row = static_cast<int32_t>(plan.rows.size());
      plan.rows.push_back({row, first + i, begin, num_blocks, -1});
    }
  }
  shuffle_blocks(plan, random);
  return plan;
}

// Random bf16 values as bf16 and as floats.
inline void fill_random(std::vector<__nv_bfloat16>& values, std::vector<float>& as_float,
                        Random& random) {
  as_float.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = __float2bfloat16(static_cast<float>(random.uniform() * 4 - 2));
    as_float[i] = __bfloat162float(values[i]);
  }
}

// Blocks of K, V or latents: values within [-2, 2] in the format of the cache.
inline std::vector<uint8_t> random_part(const Shape& shape, size_t num_blocks, Random& random) {
  std::vector<uint8_t> bytes(num_blocks * static_cast<size_t>(shape.block_bytes()));
  if (shape.cache == cuda::CacheType::kBf16) {
    for (size_t i = 0; i < bytes.size(); i += 2) {
      const uint16_t code = tensor::encode_bf16(static_cast<float>(random.uniform() * 4 - 2));
      bytes[i] = static_cast<uint8_t>(code & 0xffU);
      bytes[i + 1] = static_cast<uint8_t>(code >> 8);
    }
    return bytes;
  }
  const auto block_bytes = static_cast<size_t>(shape.block_bytes());
  const auto num_codes = static_cast<size_t>(shape.kv_heads * shape.block_size * shape.dim);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool is_code = i % block_bytes < num_codes;
    const uint64_t code = random.below(127) | random.below(2) << 7;  // all but the NaN codes
    bytes[i] = static_cast<uint8_t>(is_code ? code : random.between(114, 119));
  }
  return bytes;
}

// K and V of all blocks, one behind the other.
inline std::vector<uint8_t> random_cache(const Shape& shape, size_t num_blocks, Random& random) {
  return random_part(shape, 2 * num_blocks, random);
}

}  // namespace nanocp
