// What became of one request of a load. Plain data; times in us from the start of the run, -1 where
// something did not happen.
#pragma once

#include <cstdint>
#include <string>

namespace nanocp::load {

struct RequestRecord {
  int64_t index = 0;       // in the order of arrivals
  int64_t arrival_us = 0;  // when it was due
  int64_t start_us = 0;    // when the client began to send it
  int64_t first_token_us = -1;
  int64_t last_token_us = -1;
  int64_t end_us = 0;
  int64_t num_prompt_tokens = 0;        // planned, or else as the server counted; 0: not known
  int64_t num_output_tokens_asked = 0;  // 0: not limited
  int64_t num_output_tokens = 0;        // as the server counted, or else events that brought text
  double itl_max_us = 0.0;
  std::string error;          // its kind; empty: none
  std::string detail;         // of the error
  bool has_usage = false;     // token counts are the server's
  bool is_cancelled = false;  // the run was interrupted
  bool is_measured = true;    // false during the warm-up

  bool is_finished() const { return error.empty() && !is_cancelled; }
  bool has_tpot() const { return is_finished() && num_output_tokens > 1; }

  // Requires for these: is_finished().
  double ttft_us() const { return static_cast<double>(first_token_us - start_us); }
  double e2e_us() const { return static_cast<double>(end_us - start_us); }
  // Requires: has_tpot().
  double tpot_us() const {
    return static_cast<double>(last_token_us - first_token_us) /
           static_cast<double>(num_output_tokens - 1);
  }
};

}  // namespace nanocp::load
