// What an exchange over NCCL moves, as pieces of the heap's layout. Rows of a source lie at the
// same offsets in the sender's outbox for a destination and in that destination's heap, so one list
// serves both sides. Pure functions, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "backend/cuda/exchange_view.h"
#include "base/check.h"
#include "plan/ids.h"
#include "plan/instance_plan.h"

namespace nanocp::comm {

// How many rows an exchange moves from one instance to another.
// Requires: from != to.
inline int32_t rows_between(cuda::WaitPurpose purpose, InstanceId from, InstanceId to,
                            std::span<const InstancePlan> plans) {
  const InstancePlan& sender = plans[static_cast<size_t>(from)];
  const InstancePlan& receiver = plans[static_cast<size_t>(to)];
  switch (purpose) {
    case cuda::WaitPurpose::kQuery:
      return static_cast<int32_t>(sender.query_sends.rows(to).size());
    case cuda::WaitPurpose::kPartial:
      return static_cast<int32_t>(receiver.query_sends.rows(from).size());
    case cuda::WaitPurpose::kDispatch:
      return sender.num_rows();
    case cuda::WaitPurpose::kCombine:
      return receiver.num_rows();
  }
  return 0;
}

struct Piece {
  int64_t offset;
  int64_t bytes;
};
struct Pieces {
  std::array<Piece, 4> list;
  int32_t count = 0;

  void add(int64_t offset, int64_t bytes) {
    NANOCP_CHECK(count < static_cast<int32_t>(list.size()));
    list[static_cast<size_t>(count++)] = {offset, bytes};
  }
  std::span<const Piece> all() const { return {list.data(), static_cast<size_t>(count)}; }
};

// The first `num_rows` rows that `source` writes for another instance in exchange `epoch`.
inline Pieces pieces_of(cuda::WaitPurpose purpose, uint64_t epoch, InstanceId source,
                        int64_t num_rows, const cuda::ExchangeView& view) {
  constexpr int64_t kBf16 = 2;
  constexpr int64_t kWord = 4;
  constexpr int64_t kChoice = sizeof(cuda::ExpertChoice);
  const cuda::ExchangeOffsets& at = view.offsets;
  const int64_t first = int64_t{source} * view.max_rows;
  Pieces pieces;
  const auto add_rows = [&](int64_t region, int64_t row, int64_t row_bytes) {
    pieces.add(region + row * row_bytes, num_rows * row_bytes);
  };
  switch (purpose) {
    case cuda::WaitPurpose::kQuery:  // behind the own rows' queries
      add_rows(at.query, first + view.max_rows, view.query_values * kBf16);
      break;
    case cuda::WaitPurpose::kPartial:
      add_rows(at.partial_out, first, view.partial_values * kBf16);
      add_rows(at.partial_lse, first, view.num_heads * kWord);
      break;
    case cuda::WaitPurpose::kDispatch:
      add_rows(at.dispatch_x, first, view.hidden * kBf16);
      add_rows(at.choices,
               first + static_cast<int64_t>(epoch % 2) * view.num_instances * view.max_rows,
               view.topk * kChoice);
      break;
    case cuda::WaitPurpose::kCombine:
      add_rows(at.combine, first, view.hidden * kBf16);
      break;
  }
  return pieces;
}

}  // namespace nanocp::comm
