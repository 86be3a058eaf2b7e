// Where everything lies in an instance's exchange heap, from the widths and capacities of a model.
// Pure function, any thread.
#pragma once

#include <cstdint>

#include "backend/cuda/exchange_view.h"

namespace nanocp::comm {

// Equal on all instances of a group.
struct ExchangeCapacity {
  int32_t num_instances = 1;
  int32_t max_rows = 0;  // own rows of one instance in one step
  int32_t hidden = 0;
  int32_t topk = 0;
  int32_t num_heads = 0;
  int32_t query_values = 0;    // num_heads * k_dim
  int32_t partial_values = 0;  // num_heads * v_dim
  int64_t kv_cache_bytes = 0;
};

// A heap starts as zeros, its combine region as kNotArrivedByte.
struct ExchangeLayout {
  cuda::ExchangeOffsets offsets;
  int64_t combine_bytes;
  int64_t total_bytes;
};

inline ExchangeLayout lay_out_exchange(const ExchangeCapacity& c) {
  int64_t next = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t at = next;
    next += (bytes + 255) / 256 * 256;
    return at;
  };
  constexpr int64_t kBf16 = 2;
  constexpr int64_t kWord = 4;
  constexpr int64_t kRowCount = sizeof(cuda::RowCount);
  constexpr int64_t kChoice = sizeof(cuda::ExpertChoice);
  const int64_t instances = c.num_instances;
  const int64_t rows = instances * c.max_rows;
  ExchangeLayout layout = {};
  layout.offsets.flags = take(cuda::kNumFlagKinds * instances * 8);
  layout.offsets.row_counts = take(2 * instances * kRowCount);
  layout.offsets.choices = take(2 * rows * c.topk * kChoice);
  layout.offsets.query = take((rows + c.max_rows) * c.query_values * kBf16);
  layout.offsets.partial_out = take(rows * c.partial_values * kBf16);
  layout.offsets.partial_lse = take(rows * c.num_heads * kWord);
  layout.offsets.dispatch_x = take(rows * c.hidden * kBf16);
  layout.combine_bytes = rows * c.hidden * kBf16;
  layout.offsets.combine = take(layout.combine_bytes);
  layout.offsets.kv_cache = take(c.kv_cache_bytes);
  layout.total_bytes = next;
  return layout;
}

// The view of instance `self`; `bases`: device array of the heaps that its kernels store into.
inline cuda::ExchangeView make_exchange_view(const ExchangeCapacity& c,
                                             const ExchangeLayout& layout, uint8_t* const* bases,
                                             const cuda::WaitControl& wait) {
  cuda::ExchangeView view = {};
  view.base = bases;
  view.offsets = layout.offsets;
  view.wait = wait;
  view.self = wait.self;
  view.num_instances = c.num_instances;
  view.max_rows = c.max_rows;
  view.hidden = c.hidden;
  view.topk = c.topk;
  view.num_heads = c.num_heads;
  view.query_values = c.query_values;
  view.partial_values = c.partial_values;
  return view;
}

}  // namespace nanocp::comm
