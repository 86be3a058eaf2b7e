#include "grammar/grammar_constraint.h"

#include <algorithm>
#include <string>
#include <utility>

#include "grammar/limits.h"

namespace nanocp::grammar {

SharedMachine::SharedMachine(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary,
                             std::vector<TokenId> starts_after)
    : vocabulary_(vocabulary),
      starts_after_(std::move(starts_after)),
      machine_(std::move(automaton), std::move(vocabulary)) {}

StateId SharedMachine::read(StateId state, TokenId token) {
  const std::string& bytes = vocabulary_->bytes(token);
  if (bytes.empty()) return kDead;
  for (const char byte : bytes) {
    if (state < 0) return state;
    state = machine_.step(state, static_cast<uint8_t>(byte));
  }
  return state;
}

// A place of another epoch, or none yet, is found again from the start.
void SharedMachine::renew(Place& place, const std::vector<TokenId>& tokens) {
  if (machine_.size_bytes() > kCacheBytesMax) {
    machine_.clear();
    ++epoch_;
  }
  if (place.epoch == epoch_) return;
  place = {.state = machine_.start(), .epoch = epoch_};
  for (const TokenId token : tokens) {
    if (place.state < 0) return;
    place.state = read(place.state, token);
  }
}

SharedMachine::Place SharedMachine::advance(Place place, const std::vector<TokenId>& tokens) {
  const std::lock_guard lock(mutex_);
  if (place.epoch != epoch_) {
    renew(place, tokens);
  } else if (place.state >= 0) {
    place.state = read(place.state, tokens.back());
  }
  return place;
}

void SharedMachine::prepare() {
  const std::lock_guard lock(mutex_);
  machine_.prepare();
}

std::shared_ptr<const TokenMask> SharedMachine::mask(Place& place,
                                                     const std::vector<TokenId>& tokens) {
  const std::lock_guard lock(mutex_);
  renew(place, tokens);
  return place.state < 0 ? nullptr : machine_.mask(place.state);
}

bool SharedMachine::accepts(Place& place, const std::vector<TokenId>& tokens) {
  const std::lock_guard lock(mutex_);
  renew(place, tokens);
  return place.state >= 0 && machine_.accepts(place.state);
}

namespace {

class GrammarState final : public request::ConstraintState {
 public:
  explicit GrammarState(std::shared_ptr<SharedMachine> machine)
      : machine_(std::move(machine)), is_free_(!machine_->starts_after().empty()) {}

  std::shared_ptr<const TokenMask> allowed() override {
    if (is_free_) return nullptr;
    auto mask = std::make_shared<const TokenMask>();
    if (is_over_ || !problem_.empty()) return mask;
    auto found = machine_->mask(place_, tokens_);
    if (found == nullptr) {
      problem_ =
          "the grammar of the structured output is too ambiguous here: a limit on work was "
          "reached";
      return mask;
    }
    const bool is_stuck =
        std::all_of(found->begin(), found->end(), [](uint32_t word) { return word == 0; });
    if (is_stuck) {
      problem_ =
          "no token of the model's vocabulary continues the structured output; values that "
          "contain themselves may be nested up to " +
          std::to_string(kNestingMax) + " levels";
    }
    return found;
  }

  bool accept(TokenId token) override {
    if (is_free_) {
      tokens_.push_back(token);
      const auto& mark = machine_->starts_after();
      if (tokens_.size() > mark.size()) tokens_.erase(tokens_.begin());
      if (tokens_ != mark) return true;
      tokens_.clear();
      is_free_ = false;
      return true;
    }
    if (is_over_) return fail(token);
    if (machine_->vocabulary().is_end_token(token)) {
      is_over_ = machine_->accepts(place_, tokens_);
      return is_over_ || fail(token);
    }
    tokens_.push_back(token);
    place_ = machine_->advance(place_, tokens_);
    return place_.state >= 0 || fail(token);
  }

  std::string problem() const override { return problem_; }

 private:
  bool fail(TokenId token) {
    problem_ = "token " + std::to_string(token) +
               " was sampled, which the structured output does "
               "not allow here";
    return false;
  }

  const std::shared_ptr<SharedMachine> machine_;
  bool is_free_;  // the mark has not come yet: tokens_ are the last ones
  bool is_over_ = false;
  std::vector<TokenId> tokens_;
  SharedMachine::Place place_;
  std::string problem_;
};

}  // namespace

std::unique_ptr<request::ConstraintState> GrammarConstraint::start() const {
  return std::make_unique<GrammarState>(machine_);
}

}  // namespace nanocp::grammar
