// What a client asked for, and how far it has come. Numbers only: no text, no device.
// Owned by the engine; one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "plan/ids.h"
#include "plan/sampling_params.h"
#include "request/token_constraint.h"

namespace nanocp::request {

// Immutable after admission.
struct Request {
  int32_t max_tokens = 256;     // output limit, at least 1
  int32_t min_tokens = 0;       // stop tokens are forbidden before this many outputs
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  std::vector<TokenId> stop_token_ids;  // besides the model's own end tokens
  // -1 none; k >= 0: log probabilities of all prompt tokens but the first, and of the k best.
  int32_t num_prompt_logprobs = -1;
  bool ignore_eos = false;  // the model's end tokens do not stop (stop_token_ids do)
  int32_t priority = 0;     // lower runs first; ties by arrival
  bool draw_seed = false;   // the engine draws sampling.seed
  // For benchmarks: all prompt tokens but the last count as cached once blocks are there. Their K/V
  // is whatever the cache holds.
  bool synthetic_kv = false;
  // Structured output; null: none. Requests may share it.
  std::shared_ptr<const TokenConstraint> constraint = nullptr;
};

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };

inline const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

enum class SequenceStatus {
  kWaiting,   // in the queue: new, or preempted with a prefix of its KV kept
  kRunning,   // has rows in steps: prefill chunks or decode
  kFinished,  // holds nothing
};

// A request and its progress. The engine sets `output` and `num_unread`, the scheduler the rest.
// What every step touches comes first.
struct Sequence {
  SequenceId id = 0;
  std::vector<TokenId> output;  // sampled so far
  // Tokens that steps in flight sample after those in `output`: they have positions, and no id yet.
  int32_t num_unread = 0;
  Request request;
  SequenceStatus status = SequenceStatus::kWaiting;
  FinishReason finish_reason = FinishReason::kNone;
  int64_t arrival_us = 0;
  int64_t num_cached_tokens = 0;     // positions [0, n) have their K/V in the cache
  InstanceId binding = kNoInstance;  // runs its rows
  int32_t num_preemptions = 0;

  int64_t num_prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }
  int64_t num_outputs() const { return static_cast<int64_t>(output.size()) + num_unread; }
  // Prompt and output together.
  int64_t num_tokens() const { return num_prompt_tokens() + num_outputs(); }
  bool is_unread(int64_t position) const { return position >= num_tokens() - num_unread; }
  // Requires: position < num_tokens(), and the token has been read.
  TokenId token(int64_t position) const {
    const int64_t num_prompt = num_prompt_tokens();
    return position < num_prompt ? request.prompt[static_cast<size_t>(position)]
                                 : output[static_cast<size_t>(position - num_prompt)];
  }
  // Blocks will be there, but nothing is to be computed for the prompt but its last token.
  bool awaits_synthetic_kv() const {
    return request.synthetic_kv && num_cached_tokens == 0 && num_prompt_tokens() > 1;
  }
  // Decoding means that only the newest token has no K/V yet.
  bool is_decoding() const { return num_outputs() > 0 && num_cached_tokens == num_tokens() - 1; }
  // The last output token is never written to the cache.
  int64_t max_cached_tokens() const { return num_prompt_tokens() + request.max_tokens - 1; }
};

}  // namespace nanocp::request
