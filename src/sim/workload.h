// The requests of a simulated or generated load: how long, and when they come. Plain data; any
// thread. Everything random comes from the generator that is handed in.
//
// A load is described as `PROMPT -> OUTPUT`, or as several of them, each with its share, joined by
// `;`. Lengths are those of sim/length_distribution.h:
//   95% lognormal(1k,4k) -> uniform(200,1000) ; 5% loguniform(32k,256k) -> uniform(200,1000)
// `issue(x)` is the published "Issue x %" recipe: x percent of requests of 100 k to 995 k tokens.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "sim/length_distribution.h"

namespace nanocp::sim {

struct Arrival {
  int64_t time_us = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  int32_t priority = 0;          // lower runs first
  int64_t cancel_after_us = -1;  // the client gives up then, if it still waits; -1: never
};

// Draws prompt and output lengths together.
class LengthMixture {
 public:
  static Result<LengthMixture> parse(std::string_view text);
  Arrival draw(Random& random) const;  // time_us is 0
  int64_t max_prompt_tokens() const;

 private:
  struct Part {
    double share;
    LengthDistribution prompt;
    LengthDistribution output;
  };
  static Result<Part> parse_part(std::string_view text, bool has_share);

  std::vector<Part> parts_;
};

// `arrival_s,input_tokens,output_tokens` with a header line, sorted by arrival. `name` is for
// errors, which give the line.
Result<std::vector<Arrival>> parse_trace(std::string_view csv, std::string_view name);

enum class ArrivalProcess {
  kPoisson,   // independent arrivals
  kGamma,     // gaps of a Gamma distribution: burstier than Poisson where cv > 1
  kConstant,  // equal gaps
  kTrace,     // the trace's own gaps, stretched to the rate
};

// By its name: poisson, gamma, constant or trace; flags check names. Requires: one of these.
ArrivalProcess arrival_process(std::string_view name);

struct LoadOptions {
  ArrivalProcess process = ArrivalProcess::kPoisson;
  double cv = 1.0;            // kGamma: coefficient of variation of gaps, > 0
  double rate_per_s = 1.0;    // requests per second, > 0
  double duration_s = 600.0;  // of the arrivals, > 0
  int64_t num_requests_max = std::numeric_limits<int64_t>::max();
  bool is_rotated = false;  // a trace starts at a random request of it
};

// Arrivals by rising time. Requires: process is not kTrace.
std::vector<Arrival> draw_load(const LengthMixture& mixture, const LoadOptions& options,
                               Random random);
// The trace's lengths in its order, over again when it is short, at the given process and rate.
// Requires: trace not empty.
std::vector<Arrival> replay_load(const std::vector<Arrival>& trace, const LoadOptions& options,
                                 Random random);

// The trace's own rate, with a mean gap behind its last request. 0 where all come at once.
// Requires: trace not empty.
double native_rate_per_s(const std::vector<Arrival>& trace);

// The text that issue(x) stands for; x in percent.
std::string issue_mixture(double percent);

}  // namespace nanocp::sim
