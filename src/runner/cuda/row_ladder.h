// The row counts that steps are padded to, so that few shapes exist: those of captured graphs, and
// multiples of 64 above them. Pure functions, any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace nanocp::runner {

// The smallest rung that holds `rows`, at least 1 and at most max_rows.
// Requires: 0 <= rows <= max_rows.
inline int64_t row_bucket(int64_t rows, int64_t max_rows) {
  int64_t bucket = 1;
  if (rows > 256) {
    bucket = (rows + 63) / 64 * 64;
  } else if (rows > 8) {
    bucket = (rows + 7) / 8 * 8;
  } else {
    while (bucket < rows) bucket *= 2;
  }
  return std::min(bucket, max_rows);
}

// All rungs up to min(max_rows, max_graph_rows), rising.
inline std::vector<int64_t> graph_buckets(int64_t max_rows, int64_t max_graph_rows) {
  const int64_t most = std::min(max_rows, max_graph_rows);
  std::vector<int64_t> buckets;
  for (int64_t rows = 1; rows <= most; ++rows) {
    const int64_t bucket = row_bucket(rows, max_rows);
    if (bucket <= most && (buckets.empty() || buckets.back() != bucket)) buckets.push_back(bucket);
  }
  return buckets;
}

}  // namespace nanocp::runner
