#include "text/jinja/methods.h"

#include <algorithm>
#include <array>

#include "text/jinja/characters.h"
#include "text/jinja/operations.h"
#include "text/unicode.h"

namespace nanocp::text::jinja {
namespace {

template <size_t kCount>
bool is_one_of(std::string_view name, const std::array<std::string_view, kCount>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 4> kDictMethods = {"get", "items", "keys", "values"};
constexpr std::array<std::string_view, 27> kStringMethods = {
    "split",   "rsplit",  "strip",   "lstrip",       "rstrip",       "startswith", "endswith",
    "replace", "lower",   "upper",   "title",        "capitalize",   "join",       "find",
    "rfind",   "index",   "count",   "splitlines",   "isdigit",      "isalpha",    "isalnum",
    "isspace", "isupper", "islower", "removeprefix", "removesuffix", "zfill"};

// The argument `set` of strip and its kin: None and missing mean white space.
Value strip(const std::string& text, const Arguments& arguments, Side side, Meter& meter) {
  const Value* set = arguments.find(0, "chars");
  const bool spaces = set == nullptr || set->is_none();
  if (!spaces && !set->is_string()) fail("strip arg must be None or str");
  if (!spaces && set->string().empty()) return meter.make(std::string(text));
  const std::string_view characters = spaces ? std::string_view() : set->string();
  meter.step(static_cast<int64_t>(text.size() / 64 * (1 + characters.size())));
  return meter.make(std::string(stripped(text, characters, side)));
}

bool starts_or_ends(const std::string& text, const Value& affix, bool at_start) {
  if (affix.is_list()) {
    return std::any_of(affix.list().begin(), affix.list().end(),
                       [&](const Value& one) { return starts_or_ends(text, one, at_start); });
  }
  if (affix.is_undefined()) fail(affix.undefined_message());
  if (!affix.is_string()) fail("startswith and endswith need a str or a tuple of str");
  return at_start ? text.starts_with(affix.string()) : text.ends_with(affix.string());
}

// Cuts at white space, from the left at most `count` times.
std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t count) {
  std::vector<std::string_view> parts;
  text = stripped(text, {}, Side::kLeft);
  while (!text.empty()) {
    if (count-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Utf8Step step = next_utf8(text, end);
      if (is_python_space(step.code_point)) break;
      end += step.length;
    }
    parts.push_back(text.substr(0, end));
    text = stripped(text.substr(end), {}, Side::kLeft);
  }
  return parts;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator,
                                       int64_t count) {
  std::vector<std::string_view> parts;
  while (count-- != 0) {
    const size_t found = text.find(separator);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(0, found));
    text.remove_prefix(found + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> split_at_from_right(std::string_view text, std::string_view separator,
                                                  int64_t count) {
  std::vector<std::string_view> parts;
  while (count-- != 0) {
    const size_t found = text.rfind(separator);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value list_of(const std::vector<std::string_view>& parts, Meter& meter) {
  List list;
  for (const std::string_view part : parts) {
    meter.step();
    list.push_back(meter.make(std::string(part)));
  }
  return meter.make(std::move(list));
}

Value split(const std::string& text, const Arguments& arguments, bool from_right, Meter& meter) {
  const Value* separator = arguments.find(0, "sep");
  const int64_t count = arguments.integer(1, "maxsplit", -1);
  meter.touch(text.size());
  meter.expect(text.size() * sizeof(std::string_view));
  if (separator == nullptr || separator->is_none()) {
    if (from_right && count >= 0) fail("rsplit by white space with a limit is not supported");
    return list_of(split_at_spaces(text, count), meter);
  }
  const std::string& by = arguments.string(0, "sep");
  if (by.empty()) fail("empty separator");
  return list_of(from_right ? split_at_from_right(text, by, count) : split_at(text, by, count),
                 meter);
}

Value split_lines(const std::string& text, const Arguments& arguments, Meter& meter) {
  const bool keep_ends = arguments.flag(0, "keepends", false);
  meter.touch(text.size());
  meter.expect(text.size() * sizeof(std::string_view));
  std::vector<std::string_view> lines;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find_first_of("\r\n"), rest.size());
    const size_t size = rest.substr(end).starts_with("\r\n") ? 2 : end < rest.size() ? 1 : 0;
    lines.push_back(rest.substr(0, keep_ends ? end + size : end));
    rest.remove_prefix(end + size);
  }
  return list_of(lines, meter);
}

size_t count_of(std::string_view text, std::string_view part) {
  if (part.empty()) return num_characters(text) + 1;
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

Value replace(const std::string& text, const Arguments& arguments, Meter& meter) {
  const std::string& from = arguments.string(0, "old");
  const std::string& to = arguments.string(1, "new");
  const int64_t count = arguments.integer(2, "count", -1);
  meter.touch(text.size());
  meter.expect(count_of(text, from) * to.size() + text.size());
  return meter.make(replaced(text, from, to, count));
}

Value join(const std::string& separator, const Arguments& arguments, Meter& meter) {
  const auto items = iterate(arguments.required(0, "iterable"), meter);
  std::string out;
  for (size_t i = 0; i < items->size(); ++i) {
    const Value& item = (*items)[i];
    if (item.is_undefined()) fail(item.undefined_message());
    if (!item.is_string()) fail("sequence item " + std::to_string(i) + ": expected str instance");
    meter.allocate(separator.size() + item.string().size());
    meter.touch(separator.size() + item.string().size());
    meter.step();
    if (i > 0) out.append(separator);
    out.append(item.string());
  }
  return meter.make(std::move(out));
}

Value find(const std::string& text, std::string_view name, const Arguments& arguments,
           Meter& meter) {
  const std::string& part = arguments.string(0, "sub");
  if (arguments.positional.size() > 1) fail(std::string(name) + " takes one argument here");
  meter.touch(text.size());
  const size_t found = name == "rfind" ? text.rfind(part) : text.find(part);
  if (found == std::string::npos) {
    if (name == "index") fail("substring not found");
    return int64_t{-1};
  }
  return static_cast<int64_t>(num_characters(std::string_view(text).substr(0, found)));
}

// Whether all characters are of a kind, and there is one.
Value is_all(const std::string& text, std::string_view name, Meter& meter) {
  meter.touch(text.size());
  const auto matches = [&](std::string_view character) {
    const char32_t c = next_utf8(character, 0).code_point;
    const CharClass cls = char_class(c);
    if (name == "isdigit") return cls == CharClass::kNumber;
    if (name == "isalpha") return cls == CharClass::kLetter;
    if (name == "isspace") return is_python_space(c);
    return cls == CharClass::kLetter || cls == CharClass::kNumber;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t size = next_utf8(text, at).length;
    if (!matches(std::string_view(text).substr(at, size))) return false;
    at += size;
  }
  return !text.empty();
}

Value zero_filled(const std::string& text, const Arguments& arguments, Meter& meter) {
  const auto size = static_cast<int64_t>(num_characters(text));
  const int64_t width = arguments.integer(0, "width", 0);
  if (width <= size) return meter.make(std::string(text));
  meter.allocate(static_cast<size_t>(width));
  const bool has_sign = text.starts_with('-') || text.starts_with('+');
  std::string out = text;
  out.insert(has_sign ? 1 : 0, static_cast<size_t>(width - size), '0');
  return meter.make(std::move(out));
}

Value call_string_method(const std::string& text, std::string_view name, const Arguments& arguments,
                         Meter& meter) {
  if (name == "split" || name == "rsplit") return split(text, arguments, name == "rsplit", meter);
  if (name == "strip") return strip(text, arguments, Side::kBoth, meter);
  if (name == "lstrip") return strip(text, arguments, Side::kLeft, meter);
  if (name == "rstrip") return strip(text, arguments, Side::kRight, meter);
  if (name == "startswith") return starts_or_ends(text, arguments.required(0, "prefix"), true);
  if (name == "endswith") return starts_or_ends(text, arguments.required(0, "suffix"), false);
  if (name == "replace") return replace(text, arguments, meter);
  if (name == "join") return join(text, arguments, meter);
  if (name == "find" || name == "rfind" || name == "index") {
    return find(text, name, arguments, meter);
  }
  if (name == "splitlines") return split_lines(text, arguments, meter);
  if (name == "zfill") return zero_filled(text, arguments, meter);
  meter.touch(text.size());
  if (name == "lower") return meter.make(with_case(text, LetterCase::kLower));
  if (name == "upper") return meter.make(with_case(text, LetterCase::kUpper));
  if (name == "title") return meter.make(with_case(text, LetterCase::kTitle));
  if (name == "capitalize") return meter.make(with_case(text, LetterCase::kCapitalized));
  if (name == "count") {
    return static_cast<int64_t>(count_of(text, arguments.string(0, "sub")));
  }
  if (name == "isupper") {
    return text == with_case(text, LetterCase::kUpper) &&
           text != with_case(text, LetterCase::kLower);
  }
  if (name == "islower") {
    return text == with_case(text, LetterCase::kLower) &&
           text != with_case(text, LetterCase::kUpper);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string& affix = arguments.string(0, "affix");
    const bool at_start = name == "removeprefix";
    const bool there = at_start ? text.starts_with(affix) : text.ends_with(affix);
    if (!there) return meter.make(std::string(text));
    return meter.make(at_start ? text.substr(affix.size())
                               : text.substr(0, text.size() - affix.size()));
  }
  return is_all(text, name, meter);
}

Value call_dict_method(const Value& object, std::string_view name, const Arguments& arguments,
                       Meter& meter) {
  meter.touch(object.dict().size() * sizeof(Dict::value_type));
  if (name == "get") {
    const Value& key = arguments.required(0, "key");
    const Value* found = key.is_string() ? object.find(key.string()) : nullptr;
    if (found != nullptr) return *found;
    const Value* if_missing = arguments.find(1, "default");
    return if_missing == nullptr ? Value() : *if_missing;
  }
  List list;
  for (const auto& [key, value] : object.dict()) {
    meter.step();
    if (name == "values") {
      list.push_back(value);
    } else if (name == "keys") {
      list.push_back(meter.make(std::string(key)));
    } else {
      list.push_back(meter.make(List{meter.make(std::string(key)), value}));
    }
  }
  return meter.make(std::move(list));
}

}  // namespace

bool has_method(const Value& object, std::string_view name) {
  if (object.is_dict()) return is_one_of(name, kDictMethods);
  if (object.is_string()) return is_one_of(name, kStringMethods);
  return object.as_loop() != nullptr && name == "cycle";
}

Value call_method(const Value& object, std::string_view name, const Arguments& arguments,
                  Meter& meter) {
  meter.step();
  if (object.is_string()) return call_string_method(object.string(), name, arguments, meter);
  if (object.is_dict()) return call_dict_method(object, name, arguments, meter);
  if (arguments.positional.empty()) fail("no items for cycling given");
  return arguments.positional[object.as_loop()->index % arguments.positional.size()];
}

}  // namespace nanocp::text::jinja
