// Context lengths of a benchmark's requests: written out, drawn from a distribution, or from a
// file. Pure but for the file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "sim/length_distribution.h"

namespace nanocp::apps {

// Some requests whose lengths come from one place.
struct ContextGroup {
  sim::LengthDistribution lengths;
  int64_t count = 0;
};

// "4096x64,lognormal(1k,4k)x61,loguniform(32k,256k)x3": LENGTH[xREQUESTS], joined by commas, with
// the lengths of sim/length_distribution.h.
Result<std::vector<ContextGroup>> parse_contexts(const std::string& text);

// The lengths, group by group, each group `num_copies` times as large as it says.
std::vector<int64_t> draw_contexts(const std::vector<ContextGroup>& groups, int64_t num_copies,
                                   uint64_t seed);

// One context length per line; the first field of lines with several (CSV), empty lines and a first
// line without a number are skipped.
Result<std::vector<int64_t>> read_context_file(const std::string& file);

}  // namespace nanocp::apps
