// Structured output: turns what a client asks for (a JSON schema, any JSON object, one of several
// texts, a regular expression, a grammar) into a rule on tokens that the engine enforces. See
// docs/decisions/0024-structured-output.md for what is covered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "grammar/vocabulary.h"
#include "plan/ids.h"
#include "request/token_constraint.h"

namespace nanocp::grammar {

struct ResponseFormat {
  enum class Kind {
    kJsonObject,  // any JSON object
    kJsonSchema,  // `text` is the schema
    kChoice,      // one of `choices`
    kRegex,       // all of the output matches the pattern `text`
    kGrammar,     // `text` are rules in EBNF as llama.cpp writes it; the output matches `root`
  };
  Kind kind = Kind::kJsonObject;
  // Of a schema: JSON with its members in the client's order, which is the order in which they are
  // generated. Parse request bodies as nlohmann::ordered_json and pass dump().
  std::string text = {};
  std::vector<std::string> choices = {};
  // Not empty: anything may come until these tokens have been sampled in a row, and the format
  // holds behind them. For models that think first: the end mark of their reasoning.
  std::vector<TokenId> starts_after = {};

  bool operator==(const ResponseFormat&) const = default;
};

// Owned by the server or command; any thread. Keeps the formats that were used last.
class Compiler {
 public:
  explicit Compiler(std::shared_ptr<const Vocabulary> vocabulary);

  // Errors name the keyword and where it stands, e.g. "/properties/name: not is not supported".
  // kInvalidArgument: the format is wrong; kUnsupported: it uses what NanoCP does not cover. Takes
  // milliseconds, with a limit on size and work.
  Result<std::shared_ptr<const request::TokenConstraint>> compile(const ResponseFormat& format);

 private:
  static constexpr size_t kKeptMax = 32;
  using Kept = std::pair<ResponseFormat, std::shared_ptr<const request::TokenConstraint>>;

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // the last used one first
};

}  // namespace nanocp::grammar
