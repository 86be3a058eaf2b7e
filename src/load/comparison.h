// Whether two sets of runs differ by more than chance, metric by metric. Pure functions, any
// thread; the same input gives the same answer.
//
// With three runs or more on both sides, what varies from run to run is the noise (Welch, 1947).
// With fewer, it is estimated within the runs by drawing blocks of consecutive requests anew
// (Kuensch, 1989), since requests that wait for each other are not independent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nanocp::load {

// A measured request that was not cancelled.
struct RequestSample {
  double gap_us = 0.0;  // since the start of the one before
  double ttft_us = 0.0;
  double tpot_us = -1.0;  // below 0: none
  double e2e_us = 0.0;
  int64_t num_output_tokens = 0;
  bool is_finished = false;
  bool is_good = false;
};

struct RunSamples {
  std::vector<RequestSample> requests;  // in the order of arrivals
  double window_s = 0.0;
};

enum class Verdict {
  kWithinNoise,
  kBetter,
  kWorse,
  kUnknown
};  // of B; unknown: too few requests, or A is 0
const char* to_string(Verdict verdict);

struct Difference {
  std::string metric;
  std::string unit;
  double a = 0.0;
  double b = 0.0;
  // B over A minus 1, and where it lies with 95 % confidence.
  double change = 0.0;
  double low = 0.0;
  double high = 0.0;
  Verdict verdict = Verdict::kUnknown;
};

enum class Noise { kBetweenRuns, kWithinRuns };

struct Comparison {
  Noise noise = Noise::kWithinRuns;
  std::vector<Difference> differences;
};

// Requires: neither is empty.
Comparison compare_runs(const std::vector<RunSamples>& a, const std::vector<RunSamples>& b);

}  // namespace nanocp::load
