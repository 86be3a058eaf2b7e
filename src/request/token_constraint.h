// What the tokens of an output must spell, as a rule that the engine asks between steps. Numbers
// only: what the rule means (a JSON schema, a regular expression) is known to whoever made it.
#pragma once

#include <memory>
#include <string>

#include "plan/ids.h"
#include "plan/token_mask.h"

namespace nanocp::request {

// How far one sequence has come. Owned by the engine, one thread; not copied.
class ConstraintState {
 public:
  virtual ~ConstraintState() = default;
  ConstraintState() = default;
  ConstraintState(const ConstraintState&) = delete;
  ConstraintState& operator=(const ConstraintState&) = delete;

  // What may come next, the model's end tokens included where the output may end; null: anything.
  // Without a single bit set the output cannot go on, and problem() says why. The mask stays as it
  // is for as long as somebody holds it.
  virtual std::shared_ptr<const TokenMask> allowed() = 0;
  // Goes on by a token that was sampled; false if it was not allowed.
  virtual bool accept(TokenId token) = 0;
  // Of the last allowed() or accept() that could not go on.
  virtual std::string problem() const = 0;
};

// Immutable; one serves any number of sequences and threads.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  TokenConstraint() = default;
  TokenConstraint(const TokenConstraint&) = delete;
  TokenConstraint& operator=(const TokenConstraint&) = delete;

  // A state in which nothing has been sampled.
  virtual std::unique_ptr<ConstraintState> start() const = 0;
};

}  // namespace nanocp::request
