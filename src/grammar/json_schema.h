// JSON schemas as grammars. Texts are generated with the members of an object in the schema's
// order and none that the schema does not name, unless it asks for them. Keywords that restrict and
// are not covered are refused. Pure functions, any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "grammar/builder.h"

namespace nanocp::grammar {

// The nodes of a text that the schema allows. Errors name the keyword and its place as a JSON
// pointer.
Result<NodeId> build_json_schema(Builder& builder, std::string_view schema_text);

}  // namespace nanocp::grammar
