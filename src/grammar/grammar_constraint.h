// A grammar as the engine's rule on tokens. Sequences of one grammar share its machine, under a
// lock that is free as a rule: only the engine's thread asks for masks.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "grammar/machine.h"
#include "grammar/vocabulary.h"
#include "request/token_constraint.h"

namespace nanocp::grammar {

// The machine and whatever it has learnt so far; any thread.
class SharedMachine {
 public:
  // `starts_after`: what may come is free until these tokens have come in a row.
  SharedMachine(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary,
                std::vector<TokenId> starts_after);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  const std::vector<TokenId>& starts_after() const { return starts_after_; }

  // Where a text is. Numbers of states hold until the machine forgets them, which it does when it
  // has become too large; the tokens are then read once more.
  struct Place {
    StateId state = kDead;
    uint64_t epoch = 0;
  };
  // Of the text of `tokens`, coming from `place`, which is that of all but the last one.
  Place advance(Place place, const std::vector<TokenId>& tokens);
  void prepare();
  std::shared_ptr<const TokenMask> mask(Place& place, const std::vector<TokenId>& tokens);
  bool accepts(Place& place, const std::vector<TokenId>& tokens);

 private:
  void renew(Place& place, const std::vector<TokenId>& tokens);
  StateId read(StateId state, TokenId token);

  const std::shared_ptr<const Vocabulary> vocabulary_;
  const std::vector<TokenId> starts_after_;
  std::mutex mutex_;
  Machine machine_;
  uint64_t epoch_ = 1;
};

class GrammarConstraint final : public request::TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<SharedMachine> machine)
      : machine_(std::move(machine)) {}
  std::unique_ptr<request::ConstraintState> start() const override;

 private:
  const std::shared_ptr<SharedMachine> machine_;
};

}  // namespace nanocp::grammar
