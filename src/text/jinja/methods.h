// The methods of strings, dicts and loops that templates may call. None changes its object.
// Functions without state.
#pragma once

#include <string_view>

#include "text/jinja/arguments.h"
#include "text/jinja/meter.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

bool has_method(const Value& object, std::string_view name);

// Requires: has_method(object, name). Throws TemplateError.
Value call_method(const Value& object, std::string_view name, const Arguments& arguments,
                  Meter& meter);

}  // namespace nanocp::text::jinja
