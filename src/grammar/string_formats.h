// The values of JSON schema's `format` that strings are held to. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nanocp::grammar {

// A pattern of texts that are all of the format, if not all there are; empty for a format that any
// string is of; none for a format that is not covered.
std::optional<std::string> format_pattern(std::string_view format);
// Whether any string is of the format.
bool is_free_format(std::string_view format);
// For messages.
std::string format_names();

}  // namespace nanocp::grammar
