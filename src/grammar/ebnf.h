// Grammars as llama.cpp writes them (GBNF): `root ::= "yes" | "no" [a-z]+ rule`. Pure functions,
// any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "grammar/builder.h"

namespace nanocp::grammar {

// The nodes of the rule `root`. Errors name the line.
Result<NodeId> build_ebnf(Builder& builder, std::string_view grammar_text);

}  // namespace nanocp::grammar
