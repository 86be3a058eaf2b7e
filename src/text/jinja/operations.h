// Python's operators and conversions over template values. Everything is charged to the Meter, and
// throws TemplateError with Python's message where Python would. Functions without state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja/meter.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

// str(value): what printing it gives.
std::string to_text(const Value& value, Meter& meter);

struct JsonFormat {
  int64_t indent = -1;  // spaces per level; negative: all on one line
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps(value).
std::string to_json(const Value& value, const JsonFormat& format, Meter& meter);

bool equals(const Value& left, const Value& right, Meter& meter);
// Negative, zero or positive. Requires numbers, strings or lists of the same kind.
int compare(const Value& left, const Value& right, Meter& meter);
bool contains(const Value& container, const Value& item, Meter& meter);

// One of + - * / // % ** ~.
Value binary(std::string_view op, const Value& left, const Value& right, Meter& meter);
Value negate(const Value& value);

// The elements of a list, the keys of a dict, the characters of a string.
std::shared_ptr<const List> iterate(const Value& value, Meter& meter);
int64_t length(const Value& value, Meter& meter);

// value.name and value[key]; undefined if there is none.
Value attribute(const Value& value, std::string_view name, Meter& meter);
Value item(const Value& value, const Value& key, Meter& meter);
struct SliceBounds {
  std::optional<int64_t> begin;
  std::optional<int64_t> end;
  int64_t step = 1;
};
Value slice(const Value& value, const SliceBounds& bounds, Meter& meter);

}  // namespace nanocp::text::jinja
