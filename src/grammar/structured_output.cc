#include "grammar/structured_output.h"

#include <algorithm>
#include <utility>

#include "grammar/builder.h"
#include "grammar/ebnf.h"
#include "grammar/grammar_constraint.h"
#include "grammar/json_schema.h"
#include "grammar/json_text.h"
#include "grammar/limits.h"
#include "grammar/regex.h"

namespace nanocp::grammar {
namespace {

Result<NodeId> build_choice(Builder& builder, const std::vector<std::string>& choices) {
  if (choices.empty()) return invalid_argument("the list of choices is empty");
  size_t num_bytes = 0;
  for (const std::string& choice : choices) num_bytes += choice.size() + 1;
  if (num_bytes > kChoicesBytesMax) {
    return invalid_argument("the choices have " + std::to_string(num_bytes) + " bytes, at most " +
                            std::to_string(kChoicesBytesMax) + " are allowed");
  }
  return builder.one_of(choices, builder.end());
}

Result<NodeId> build_pattern(Builder& builder, const std::string& pattern) {
  NANOCP_ASSIGN_OR_RETURN(const Regex regex, parse_regex(pattern, RegexMatch::kWhole));
  return build_regex(
      builder, regex,
      [&builder](const CharSet& chars, NodeId next) { return builder.character(chars, next); },
      builder.end());
}

Result<NodeId> build_format(Builder& builder, const ResponseFormat& format) {
  using Kind = ResponseFormat::Kind;
  switch (format.kind) {
    case Kind::kJsonObject:
      return JsonText(builder).any_object(builder.end());
    case Kind::kJsonSchema:
      return build_json_schema(builder, format.text);
    case Kind::kChoice:
      return build_choice(builder, format.choices);
    case Kind::kRegex:
      return build_pattern(builder, format.text);
    case Kind::kGrammar:
      return build_ebnf(builder, format.text);
  }
  return invalid_argument("unknown kind of format");
}

Result<std::shared_ptr<const request::TokenConstraint>> make_constraint(
    const ResponseFormat& format, const std::shared_ptr<const Vocabulary>& vocabulary) {
  Builder builder;
  NANOCP_ASSIGN_OR_RETURN(NodeId start, build_format(builder, format));
  // Behind its thoughts a model writes empty lines.
  if (!format.starts_after.empty()) {
    const NodeId line = builder.split({start, builder.literal("\n", start)});
    start = builder.split({start, builder.literal("\n", line)});
  }
  NANOCP_ASSIGN_OR_RETURN(Automaton automaton, builder.finish(start));
  auto machine =
      std::make_shared<SharedMachine>(std::move(automaton), vocabulary, format.starts_after);
  // What takes longest is done here, where no other request waits for it.
  machine->prepare();
  SharedMachine::Place place;
  if (machine->mask(place, {}) == nullptr) {
    return invalid_argument("the grammar is too ambiguous: simplify it");
  }
  return std::shared_ptr<const request::TokenConstraint>(
      std::make_shared<const GrammarConstraint>(std::move(machine)));
}

}  // namespace

Compiler::Compiler(std::shared_ptr<const Vocabulary> vocabulary)
    : vocabulary_(std::move(vocabulary)) {}

Result<std::shared_ptr<const request::TokenConstraint>> Compiler::compile(
    const ResponseFormat& format) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(kept_.begin(), kept_.end(),
                                    [&](const Kept& kept) { return kept.first == format; });
    if (found != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, found);
      return kept_.front().second;
    }
  }
  NANOCP_ASSIGN_OR_RETURN(auto constraint, make_constraint(format, vocabulary_));
  const std::lock_guard lock(mutex_);
  kept_.emplace_front(format, constraint);
  if (kept_.size() > kKeptMax) kept_.pop_back();
  return constraint;
}

}  // namespace nanocp::grammar
