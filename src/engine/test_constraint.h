// A constraint for tests of what plans steps: which tokens are allowed depends on all tokens so
// far, so that a mask that is a token late shows.
#pragma once

#include <memory>
#include <string>

#include "request/token_constraint.h"

namespace nanocp::engine {

// Allows the tokens whose remainder by kModulus is that of the sum of all tokens so far, `end`
// aside; after `num_tokens` none but `end`.
class SumConstraint final : public request::TokenConstraint {
 public:
  static constexpr int64_t kModulus = 7;
  struct Options {
    int32_t vocab_size;
    int64_t num_tokens;  // 0: without an end
    TokenId end;
    bool gets_stuck = false;  // instead of the end
  };
  explicit SumConstraint(const Options& options) : options_(options) {}
  std::unique_ptr<request::ConstraintState> start() const override {
    return std::make_unique<State>(options_);
  }

 private:
  class State final : public request::ConstraintState {
   public:
    explicit State(const Options& options) : options_(options) {}
    std::shared_ptr<const TokenMask> allowed() override {
      auto mask = std::make_shared<TokenMask>(mask_words(options_.vocab_size), 0);
      const bool is_over = options_.num_tokens > 0 && num_tokens_ == options_.num_tokens;
      for (TokenId token = 0; token < options_.vocab_size; ++token) {
        const bool is_end = token == options_.end;
        const bool follows = token % kModulus == sum_ % kModulus && !is_end;
        if (is_over ? is_end && !options_.gets_stuck : follows) {
          (*mask)[static_cast<size_t>(token) / 32] |= 1U << (static_cast<uint32_t>(token) % 32);
        }
      }
      return mask;
    }
    bool accept(TokenId token) override {
      const bool is_allowed = mask_allows(*allowed(), token);
      sum_ += token;
      ++num_tokens_;
      return is_allowed;
    }
    std::string problem() const override { return "the sum is wrong"; }

   private:
    const Options options_;
    int64_t sum_ = 0;
    int64_t num_tokens_ = 0;
  };
  const Options options_;
};

}  // namespace nanocp::engine
