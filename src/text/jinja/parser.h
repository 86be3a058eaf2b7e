// Jinja's grammar, as far as chat templates use it. Everything that could reach another file
// (include, import, extends) is refused. Pure function.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace nanocp::text::jinja {

// Throws TemplateError.
Block parse(std::string_view source);

}  // namespace nanocp::text::jinja
