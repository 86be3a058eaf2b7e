// Compares an engine with golden results. Each case runs twice: once generating, which goes through
// the decode path, and once with the golden continuation as part of the prompt, which still tells
// something after the two have taken different sides of a tie. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "apps/golden_file.h"
#include "base/result.h"
#include "engine/engine.h"

namespace nanocp::apps {

struct CaseReport {
  // Largest |difference| of a logit over the golden's largest |logit|; infinity after a NaN.
  double last_logits_error = 0.0;
  double logits_after_error = 0.0;
  std::optional<double> decode_error;  // of logits_after when generating; none after a tie
  int32_t num_greedy_equal = 0;        // tokens up to a difference or a tie
  std::optional<int32_t> tie;          // index of the token where the two took sides
  std::optional<int32_t> mismatch;     // index of a different token that no tie explains
  engine::SequenceSummary placement;   // at the end of the generating run

  double largest_error() const;
  bool passes(double tolerance) const { return !mismatch && largest_error() <= tolerance; }
};

class Verification {
 public:
  // A token may differ where the golden margin is below what two errors of `tolerance` can close.
  // Requires: the engine's runner keeps logits; all outlive this.
  Verification(engine::Engine& engine, const std::vector<GoldenCase>& cases, double tolerance);

  // Tokens of the longest sequence that a case needs.
  static int64_t num_tokens(const GoldenCase& golden);

  // By case. Stops early when `interrupted` says so: none then.
  Result<std::optional<std::vector<CaseReport>>> run(const std::function<bool()>& interrupted);

 private:
  struct Run {
    size_t case_index;
    bool generates;
    int32_t num_outputs = 0;
  };

  Status add_requests();
  Status add_request(size_t case_index, bool generates);
  void handle(const engine::TokenEvent& event);
  void compare_generated(const engine::TokenEvent& event, const Run& run);

  engine::Engine& engine_;
  const std::vector<GoldenCase>& cases_;
  double tolerance_;
  std::vector<CaseReport> reports_;
  std::unordered_map<SequenceId, Run> runs_;
};

}  // namespace nanocp::apps
