// Row counts of steps on a GPU and the layout of the exchange heap: both are plain arithmetic.
#include <gtest/gtest.h>

#include <vector>

#include "comm/nvlink/exchange_layout.h"
#include "runner/cuda/row_ladder.h"

namespace nanocp::runner {
namespace {

TEST(RowLadder, EveryStepFitsItsRung) {
  for (const int64_t max_rows : {1, 7, 100, 256, 1000}) {
    int64_t last = 0;
    for (int64_t rows = 0; rows <= max_rows; ++rows) {
      const int64_t bucket = row_bucket(rows, max_rows);
      EXPECT_GE(bucket, std::max<int64_t>(1, rows));
      EXPECT_LE(bucket, max_rows);
      EXPECT_GE(bucket, last);
      EXPECT_LE(bucket, std::max<int64_t>({1, 2 * rows, rows + 63}));
      last = bucket;
    }
  }
}

TEST(RowLadder, GraphsServeEveryCountUpToTheirLimit) {
  for (const auto& [max_rows, max_graph_rows] :
       {std::pair<int64_t, int64_t>{512, 256}, {100, 256}, {3, 3}, {64, 1}}) {
    const std::vector<int64_t> buckets = graph_buckets(max_rows, max_graph_rows);
    ASSERT_FALSE(buckets.empty());
    for (int64_t rows = 0; rows <= buckets.back(); ++rows) {
      const int64_t bucket = row_bucket(rows, max_rows);
      EXPECT_NE(std::find(buckets.begin(), buckets.end(), bucket), buckets.end()) << rows;
    }
    EXPECT_LE(buckets.back(), std::min(max_rows, max_graph_rows));
  }
  EXPECT_EQ(graph_buckets(512, 40), (std::vector<int64_t>{1, 2, 4, 8, 16, 24, 32, 40}));
}

// No two regions overlap, and each holds what its comment says.
TEST(ExchangeLayout, RegionsFollowOneAnother) {
  const comm::ExchangeCapacity c = {.num_instances = 3,
                                    .max_rows = 5,
                                    .hidden = 96,
                                    .topk = 3,
                                    .num_heads = 7,
                                    .query_values = 7 * 40,
                                    .partial_values = 7 * 24,
                                    .kv_cache_bytes = 10'001};
  const comm::ExchangeLayout layout = comm::lay_out_exchange(c);
  const cuda::ExchangeOffsets& o = layout.offsets;
  std::vector<std::pair<int64_t, int64_t>> regions = {{o.query, 4 * 5 * 7 * 40 * 2},
                                                      {o.partial_out, 3 * 5 * 7 * 24 * 2},
                                                      {o.partial_lse, 3 * 5 * 7 * 4},
                                                      {o.dispatch_x, 3 * 5 * 96 * 2},
                                                      {o.choices, 2 * 3 * 5 * 3 * 16},
                                                      {o.row_counts, 2 * 3 * 16},
                                                      {o.combine, 3 * 5 * 96 * 2},
                                                      {o.flags, cuda::kNumFlagKinds * 3 * 8},
                                                      {o.kv_cache, 10'001}};
  std::sort(regions.begin(), regions.end());
  int64_t end = 0;
  for (const auto& [begin, size] : regions) {
    EXPECT_EQ(begin % 256, 0);
    EXPECT_GE(begin, end);
    end = begin + size;
  }
  EXPECT_GE(layout.total_bytes, end);
  EXPECT_EQ(layout.combine_bytes, 3 * 5 * 96 * 2);
}

}  // namespace
}  // namespace nanocp::runner
