#include "text/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/markup.h"
#include "text/jinja/characters.h"
#include "text/jinja/list_filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/operations.h"

namespace nanocp::text::jinja {
namespace {

// The text of a value that a string filter is applied to.
Value text_of(const Value& value, Meter& meter) {
  return value.is_string() ? value : meter.make(to_text(value, meter));
}

Value filter_default(const Value& value, const Arguments& arguments, Meter& /*meter*/) {
  const bool or_falsy = arguments.flag(1, "boolean", false);
  if (!value.is_undefined() && !(or_falsy && !value.truthy())) return value;
  const Value* if_missing = arguments.find(0, "default_value");
  return if_missing == nullptr ? Value("") : *if_missing;
}

// The arguments are those of the filter that the transformers library puts in place of Jinja's own.
Value filter_to_json(const Value& value, const Arguments& arguments, Meter& meter) {
  JsonFormat format;
  format.ensure_ascii = arguments.flag(0, "ensure_ascii", false);
  format.indent = std::min<int64_t>(arguments.integer(1, "indent", -1), 64);
  if (format.indent >= 0) format.item_separator.pop_back();  // no space at the end of a line
  format.sort_keys = arguments.flag(3, "sort_keys", false);
  const Value* separators = arguments.find(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    const bool is_pair = separators->is_list() && separators->list().size() == 2 &&
                         separators->list()[0].is_string() && separators->list()[1].is_string();
    if (!is_pair) fail("argument 'separators' must be two strings");
    format.item_separator = separators->list()[0].string();
    format.key_separator = separators->list()[1].string();
  }
  return to_json(value, format, meter);
}

Value filter_int(const Value& value, const Arguments& arguments, Meter& /*meter*/) {
  const Value* named = arguments.find(0, "default");
  Value if_not = named == nullptr ? Value(int64_t{0}) : *named;
  if (value.is_integer()) return value.integer();
  if (value.is_float()) {
    const double number = value.number();
    return std::fabs(number) < 9e18 ? Value(static_cast<int64_t>(number)) : if_not;
  }
  if (!value.is_string()) return if_not;
  const std::string_view text = stripped(value.string(), {}, Side::kBoth);
  double number = 0;
  int64_t integer = 0;
  const char* end = text.data() + text.size();
  const auto whole = std::from_chars(text.data(), end, integer);
  if (whole.ec == std::errc() && whole.ptr == end) return integer;
  const auto real = std::from_chars(text.data(), end, number);
  const bool fits = real.ec == std::errc() && real.ptr == end && std::fabs(number) < 9e18;
  return fits ? Value(static_cast<int64_t>(number)) : if_not;
}

Value filter_float(const Value& value, const Arguments& arguments, Meter& /*meter*/) {
  if (value.is_number()) return value.number();
  if (value.is_string()) {
    const std::string_view text = stripped(value.string(), {}, Side::kBoth);
    double number = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, number);
    if (parsed.ec == std::errc() && parsed.ptr == end) return number;
  }
  const Value* if_not = arguments.find(0, "default");
  return if_not == nullptr ? Value(0.0) : *if_not;
}

Value filter_abs(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  return compare(value, int64_t{0}, meter) < 0 ? negate(value) : value;
}

Value filter_round(const Value& value, const Arguments& arguments, Meter& /*meter*/) {
  if (!value.is_number()) fail("round needs a number");
  const double scale = std::pow(10.0, static_cast<double>(arguments.integer(0, "precision", 0)));
  const Value* method = arguments.find(1, "method");
  const std::string name = method != nullptr && method->is_string() ? method->string() : "common";
  const double scaled = value.number() * scale;
  if (name == "ceil") return std::ceil(scaled) / scale;
  if (name == "floor") return std::floor(scaled) / scale;
  return std::nearbyint(scaled) / scale;
}

Value filter_indent(const Value& value, const Arguments& arguments, Meter& meter) {
  const Value* width = arguments.find(0, "width");
  const std::string pad =
      width != nullptr && width->is_string()
          ? width->string()
          : std::string(
                static_cast<size_t>(std::clamp<int64_t>(arguments.integer(0, "width", 4), 0, 1024)),
                ' ');
  const bool first = arguments.flag(1, "first", false);
  const bool blank = arguments.flag(2, "blank", false);
  const Value text = text_of(value, meter);
  std::string_view rest = text.string();
  meter.touch(rest.size());
  const auto num_lines = std::count(rest.begin(), rest.end(), '\n') + 1;
  meter.allocate(rest.size() + static_cast<size_t>(num_lines) * pad.size());
  std::string out;
  bool is_first = true;
  while (true) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    if (is_first ? first : (blank || !line.empty())) out.append(pad);
    out.append(line);
    if (end == std::string_view::npos) break;
    out.push_back('\n');
    rest.remove_prefix(end + 1);
    is_first = false;
  }
  return meter.make(std::move(out));
}

Value filter_escape(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  const Value text = text_of(value, meter);
  meter.allocate(text.string().size() * 6);
  return meter.make(escape_markup(text.string(), "&#34;"));
}

// A filter that is the string method `name`.
template <const char* name>
Value as_method(const Value& value, const Arguments& arguments, Meter& meter) {
  return call_method(text_of(value, meter), name, arguments, meter);
}
constexpr char kStrip[] = "strip";
constexpr char kUpper[] = "upper";
constexpr char kLower[] = "lower";
constexpr char kTitle[] = "title";
constexpr char kCapitalize[] = "capitalize";
constexpr char kReplace[] = "replace";

Value filter_length(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  return length(value, meter);
}
Value filter_string(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  return text_of(value, meter);
}
Value filter_items(const Value& value, const Arguments& arguments, Meter& meter) {
  if (value.is_undefined()) return meter.make(List{});
  if (!value.is_dict()) fail("Can only get item pairs from a mapping.");
  return call_method(value, "items", arguments, meter);
}
Value filter_safe(const Value& value, const Arguments& /*arguments*/, Meter& /*meter*/) {
  return value;
}
Value filter_attribute(const Value& value, const Arguments& arguments, Meter& meter) {
  return attribute(value, arguments.string(0, "name"), meter);
}

const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> kFilters = [] {
    std::map<std::string_view, Filter> all = list_filters();
    const std::map<std::string_view, Filter> scalar = {
        {"default", filter_default},
        {"d", filter_default},
        {"tojson", filter_to_json},
        {"int", filter_int},
        {"float", filter_float},
        {"abs", filter_abs},
        {"round", filter_round},
        {"indent", filter_indent},
        {"escape", filter_escape},
        {"e", filter_escape},
        {"trim", as_method<kStrip>},
        {"upper", as_method<kUpper>},
        {"lower", as_method<kLower>},
        {"title", as_method<kTitle>},
        {"capitalize", as_method<kCapitalize>},
        {"replace", as_method<kReplace>},
        {"length", filter_length},
        {"count", filter_length},
        {"string", filter_string},
        {"items", filter_items},
        {"safe", filter_safe},
        {"attr", filter_attribute},
    };
    all.insert(scalar.begin(), scalar.end());
    return all;
  }();
  return kFilters;
}

}  // namespace

bool has_filter(std::string_view name) {
  return filters().contains(name);
}

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments,
                   Meter& meter) {
  meter.step();
  return filters().at(name)(value, arguments, meter);
}

}  // namespace nanocp::text::jinja
