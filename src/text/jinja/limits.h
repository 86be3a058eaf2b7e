// What one rendering may cost at most, so that no template and no conversation can stall or exhaust
// a server. Plain data.
#pragma once

#include <cstdint>

namespace nanocp::text::jinja {

struct Limits {
  // Nodes evaluated, and pieces of 64 bytes touched by string operations.
  int64_t steps_max = 20'000'000;
  // All bytes that strings, lists and dicts take, dropped ones included.
  int64_t memory_bytes_max = int64_t{512} << 20;
  int64_t output_bytes_max = int64_t{64} << 20;
  int64_t duration_us_max = 5'000'000;
  int32_t depth_max = 600;        // of nested evaluation: macros, blocks and expressions together
  int32_t value_depth_max = 128;  // of lists and dicts inside each other
};

// A template's own size and the nesting of its blocks and expressions.
constexpr int64_t kTemplateBytesMax = int64_t{1} << 20;
constexpr int32_t kParseDepthMax = 200;

}  // namespace nanocp::text::jinja
