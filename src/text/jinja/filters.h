// Jinja's filters and tests, as far as chat templates use them. Functions without state.
#pragma once

#include <string_view>

#include "text/jinja/arguments.h"
#include "text/jinja/meter.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

bool has_filter(std::string_view name);
bool has_test(std::string_view name);

// Requires: has_filter(name). Throws TemplateError.
Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments,
                   Meter& meter);
// Requires: has_test(name). Throws TemplateError.
bool apply_test(std::string_view name, const Value& value, const Arguments& arguments,
                Meter& meter);

}  // namespace nanocp::text::jinja
