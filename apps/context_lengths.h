// Context lengths of a benchmark's requests: written out, drawn from a distribution, or from a
// file. Pure but for the file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace nanocp::apps {

// Some requests whose lengths come from one place.
struct ContextGroup {
  enum class Kind {
    kFixed,       // all `low`
    kUniform,     // low .. high, every length alike
    kLogUniform,  // low .. high, every factor alike
    kLogNormal,   // nine of ten lie in low .. high, as many below as above
  };
  Kind kind = Kind::kFixed;
  int64_t low = 0;  // tokens
  int64_t high = 0;
  int64_t count = 0;
};

// "4096x64,lognormal:1k:4kx61,loguniform:32k:256kx3": LENGTH[xREQUESTS], joined by commas. A LENGTH
// is TOKENS, or NAME:LOW:HIGH with the name of a distribution; k and M stand for 1024 and 1024^2.
Result<std::vector<ContextGroup>> parse_contexts(const std::string& text);

// The lengths, group by group, each group `num_copies` times as large as it says.
std::vector<int64_t> draw_contexts(const std::vector<ContextGroup>& groups, int64_t num_copies,
                                   uint64_t seed);

// One context length per line; the first field of lines with several (CSV), empty lines and a first
// line without a number are skipped.
Result<std::vector<int64_t>> read_context_file(const std::string& file);

}  // namespace nanocp::apps
