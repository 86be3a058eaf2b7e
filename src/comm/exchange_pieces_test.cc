// What an exchange over NCCL moves: plain arithmetic over plans and the heap's layout.
#include "comm/nccl/exchange_pieces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "comm/nvlink/exchange_layout.h"

namespace nanocp::comm {
namespace {

using cuda::WaitPurpose;

constexpr WaitPurpose kPurposes[] = {WaitPurpose::kQuery, WaitPurpose::kPartial,
                                     WaitPurpose::kDispatch, WaitPurpose::kCombine};

cuda::ExchangeView make_view() {
  const ExchangeCapacity c = {.num_instances = 3,
                              .max_rows = 5,
                              .hidden = 96,
                              .topk = 3,
                              .num_heads = 7,
                              .query_values = 7 * 40,
                              .partial_values = 7 * 24,
                              .kv_cache_bytes = 10'001};
  cuda::ExchangeView view = {};
  view.offsets = lay_out_exchange(c).offsets;
  view.num_instances = c.num_instances;
  view.max_rows = c.max_rows;
  view.hidden = c.hidden;
  view.topk = c.topk;
  view.num_heads = c.num_heads;
  view.query_values = c.query_values;
  view.partial_values = c.partial_values;
  return view;
}

TEST(ExchangePieces, LieWhereKernelsWriteRows) {
  const cuda::ExchangeView view = make_view();
  const cuda::ExchangeOffsets& at = view.offsets;
  uint64_t epoch = 6;
  const auto expect = [&](WaitPurpose purpose, std::vector<Piece> expected) {
    const Pieces pieces = pieces_of(purpose, epoch, 2, 4, view);
    ASSERT_EQ(pieces.all().size(), expected.size()) << to_string(purpose);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(pieces.all()[i].offset, expected[i].offset) << to_string(purpose);
      EXPECT_EQ(pieces.all()[i].bytes, expected[i].bytes) << to_string(purpose);
    }
  };
  expect(WaitPurpose::kQuery, {{at.query + 15 * 560, 4 * 560}});
  expect(WaitPurpose::kPartial,
         {{at.partial_out + 10 * 336, 4 * 336}, {at.partial_lse + 10 * 28, 4 * 28}});
  expect(WaitPurpose::kDispatch,
         {{at.dispatch_x + 10 * 192, 4 * 192}, {at.choices + 10 * 48, 4 * 48}});
  epoch = 5;
  expect(WaitPurpose::kDispatch,
         {{at.dispatch_x + 10 * 192, 4 * 192}, {at.choices + (15 + 10) * 48, 4 * 48}});
  expect(WaitPurpose::kCombine, {{at.combine + 10 * 192, 4 * 192}});
}

TEST(ExchangePieces, OfAllSourcesAndPurposesAreApart) {
  const cuda::ExchangeView view = make_view();
  std::vector<Piece> all;
  for (const WaitPurpose purpose : kPurposes) {
    for (InstanceId source = 0; source < view.num_instances; ++source) {
      const Pieces pieces = pieces_of(purpose, 1, source, view.max_rows, view);
      all.insert(all.end(), pieces.all().begin(), pieces.all().end());
    }
  }
  std::sort(all.begin(), all.end(),
            [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_LE(all[i - 1].offset + all[i - 1].bytes, all[i].offset);
  }
  EXPECT_LE(all.back().offset + all.back().bytes, view.offsets.kv_cache);
}

TEST(ExchangePieces, RowsGoOutAndComeBack) {
  std::vector<InstancePlan> plans(2);
  for (InstancePlan& plan : plans) plan.reset(2);
  plans[0].token_ids = {1, 2, 3, 4, 5};
  plans[0].query_sends.add(1, 0);
  plans[0].query_sends.add(1, 4);
  plans[1].token_ids = {6};
  const auto rows = [&](WaitPurpose purpose, InstanceId from, InstanceId to) {
    return rows_between(purpose, from, to, plans);
  };
  EXPECT_EQ(rows(WaitPurpose::kQuery, 0, 1), 2);
  EXPECT_EQ(rows(WaitPurpose::kQuery, 1, 0), 0);
  EXPECT_EQ(rows(WaitPurpose::kPartial, 1, 0), 2);
  EXPECT_EQ(rows(WaitPurpose::kPartial, 0, 1), 0);
  EXPECT_EQ(rows(WaitPurpose::kDispatch, 0, 1), 5);
  EXPECT_EQ(rows(WaitPurpose::kDispatch, 1, 0), 1);
  EXPECT_EQ(rows(WaitPurpose::kCombine, 1, 0), 5);
  EXPECT_EQ(rows(WaitPurpose::kCombine, 0, 1), 1);
}

}  // namespace
}  // namespace nanocp::comm
