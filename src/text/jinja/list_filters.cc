#include "text/jinja/list_filters.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/characters.h"
#include "text/jinja/filters.h"
#include "text/jinja/operations.h"

namespace nanocp::text::jinja {
namespace {

// item.a.b for the path "a.b"; numbers are indices. What is missing on the way is `if_missing`,
// unless that is null.
Value path_of(Value value, std::string_view path, Meter& meter, const Value* if_missing = nullptr) {
  while (true) {
    const size_t dot = path.find('.');
    const std::string_view name = path.substr(0, dot);
    int64_t index = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
    value = item(value, is_index ? Value(index) : meter.make(std::string(name)), meter);
    if (if_missing != nullptr && value.is_undefined()) value = *if_missing;
    if (dot == std::string_view::npos) return value;
    path.remove_prefix(dot + 1);
  }
}

// What an item counts as when it is sorted or compared: one of its attributes, in lower case.
struct Key {
  const Value* attribute = nullptr;
  bool case_sensitive = false;

  Value of(const Value& item, Meter& meter) const {
    Value key = item;
    if (attribute != nullptr && attribute->is_integer()) {
      key = jinja::item(item, *attribute, meter);
    } else if (attribute != nullptr && attribute->is_string()) {
      key = path_of(item, attribute->string(), meter);
    }
    if (case_sensitive || !key.is_string()) return key;
    return meter.make(with_case(key.string(), LetterCase::kLower));
  }
};

Value sorted(const List& items, const Key& key, bool reverse, Meter& meter) {
  List keys;
  std::vector<size_t> order;
  meter.allocate(items.size() * (sizeof(Value) + sizeof(size_t)));
  for (const Value& item : items) {
    keys.push_back(key.of(item, meter));
    order.push_back(order.size());
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? compare(keys[b], keys[a], meter) < 0 : compare(keys[a], keys[b], meter) < 0;
  });
  List out;
  for (const size_t i : order) out.push_back(items[i]);
  return meter.make(std::move(out));
}

Value filter_sort(const Value& value, const Arguments& arguments, Meter& meter) {
  const Key key{arguments.find(2, "attribute"), arguments.flag(1, "case_sensitive", false)};
  return sorted(*iterate(value, meter), key, arguments.flag(0, "reverse", false), meter);
}

Value filter_dict_sort(const Value& value, const Arguments& arguments, Meter& meter) {
  if (!value.is_dict()) fail("dictsort needs a mapping");
  const Value* by = arguments.find(1, "by");
  const bool by_value = by != nullptr && by->is_string() && by->string() == "value";
  const Value index(int64_t{by_value ? 1 : 0});
  List pairs;
  for (const auto& [name, held] : value.dict()) {
    pairs.push_back(meter.make(List{meter.make(std::string(name)), held}));
  }
  const Key key{&index, arguments.flag(0, "case_sensitive", false)};
  return sorted(pairs, key, arguments.flag(2, "reverse", false), meter);
}

Value filter_unique(const Value& value, const Arguments& arguments, Meter& meter) {
  const Key key{arguments.find(1, "attribute"), arguments.flag(0, "case_sensitive", false)};
  List out;
  List keys;
  for (const Value& item : *iterate(value, meter)) {
    Value own = key.of(item, meter);
    const bool seen = std::any_of(keys.begin(), keys.end(),
                                  [&](const Value& other) { return equals(own, other, meter); });
    if (seen) continue;
    keys.push_back(std::move(own));
    out.push_back(item);
  }
  return meter.make(std::move(out));
}

Value filter_join(const Value& value, const Arguments& arguments, Meter& meter) {
  const Value* separator = arguments.find(0, "d");
  const std::string between = separator == nullptr ? "" : to_text(*separator, meter);
  const Value* path = arguments.find(1, "attribute");
  std::string out;
  bool is_first = true;
  for (const Value& item : *iterate(value, meter)) {
    const bool by_path = path != nullptr && path->is_string();
    const std::string text = to_text(by_path ? path_of(item, path->string(), meter) : item, meter);
    meter.step();
    meter.touch(between.size() + text.size());
    meter.allocate(between.size() + text.size());
    if (!is_first) out.append(between);
    out.append(text);
    is_first = false;
  }
  return meter.make(std::move(out));
}

Value filter_first(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  const auto items = iterate(value, meter);
  return items->empty() ? Value::undefined("No first item, sequence was empty.") : items->front();
}

Value filter_last(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  const auto items = iterate(value, meter);
  return items->empty() ? Value::undefined("No last item, sequence was empty.") : items->back();
}

Value filter_list(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  return meter.make(List(*iterate(value, meter)));
}

Value filter_reverse(const Value& value, const Arguments& /*arguments*/, Meter& meter) {
  if (value.is_string()) return slice(value, {.begin = {}, .end = {}, .step = -1}, meter);
  List items = *iterate(value, meter);
  std::reverse(items.begin(), items.end());
  return meter.make(std::move(items));
}

Value extreme(const Value& value, const Arguments& arguments, int sign, Meter& meter) {
  const Key key{arguments.find(1, "attribute"), arguments.flag(0, "case_sensitive", false)};
  const auto items = iterate(value, meter);
  if (items->empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < items->size(); ++i) {
    const int order = compare(key.of((*items)[i], meter), key.of((*items)[best], meter), meter);
    if (order * sign > 0) best = i;
  }
  return (*items)[best];
}
Value filter_max(const Value& value, const Arguments& arguments, Meter& meter) {
  return extreme(value, arguments, 1, meter);
}
Value filter_min(const Value& value, const Arguments& arguments, Meter& meter) {
  return extreme(value, arguments, -1, meter);
}

Value filter_sum(const Value& value, const Arguments& arguments, Meter& meter) {
  const Value* path = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : *iterate(value, meter)) {
    const bool by_path = path != nullptr && path->is_string();
    total = binary("+", total, by_path ? path_of(item, path->string(), meter) : item, meter);
  }
  return total;
}

// map(attribute="a.b", default=x) or map("filter", arguments of the filter).
Value filter_map(const Value& value, const Arguments& arguments, Meter& meter) {
  const Value* path = nullptr;
  const Value* if_missing = nullptr;
  for (const auto& [name, argument] : arguments.named) {
    if (name == "attribute") path = &argument;
    if (name == "default") if_missing = &argument;
  }
  List out;
  if (path != nullptr) {
    if (!path->is_string()) fail("argument 'attribute' must be a string");
    for (const Value& item : *iterate(value, meter)) {
      out.push_back(path_of(item, path->string(), meter, if_missing));
    }
    return meter.make(std::move(out));
  }
  const std::string& name = arguments.string(0, "filter");
  if (!has_filter(name)) fail("No filter named '" + name + "'.");
  const Arguments rest = arguments.without_first(1);
  for (const Value& item : *iterate(value, meter)) {
    out.push_back(apply_filter(name, item, rest, meter));
  }
  return meter.make(std::move(out));
}

// select and reject, of the items or, with an attribute first, of one of their attributes.
Value selected(const Value& value, const Arguments& arguments, bool by_attribute, bool wanted,
               Meter& meter) {
  const size_t place = by_attribute ? 1 : 0;
  const bool has_name = arguments.positional.size() > place;
  const std::string test = has_name ? arguments.string(place, "test") : "";
  if (has_name && !has_test(test)) fail("No test named '" + test + "'.");
  const Arguments rest = arguments.without_first(place + 1);
  List out;
  for (const Value& item : *iterate(value, meter)) {
    meter.step();
    const Value subject =
        by_attribute ? path_of(item, arguments.string(0, "attribute"), meter) : item;
    const bool passes = has_name ? apply_test(test, subject, rest, meter) : subject.truthy();
    if (passes == wanted) out.push_back(item);
  }
  return meter.make(std::move(out));
}
Value filter_select(const Value& value, const Arguments& arguments, Meter& meter) {
  return selected(value, arguments, false, true, meter);
}
Value filter_reject(const Value& value, const Arguments& arguments, Meter& meter) {
  return selected(value, arguments, false, false, meter);
}
Value filter_select_attribute(const Value& value, const Arguments& arguments, Meter& meter) {
  return selected(value, arguments, true, true, meter);
}
Value filter_reject_attribute(const Value& value, const Arguments& arguments, Meter& meter) {
  return selected(value, arguments, true, false, meter);
}

}  // namespace

std::map<std::string_view, Filter> list_filters() {
  return {{"sort", filter_sort},
          {"dictsort", filter_dict_sort},
          {"unique", filter_unique},
          {"join", filter_join},
          {"first", filter_first},
          {"last", filter_last},
          {"list", filter_list},
          {"reverse", filter_reverse},
          {"max", filter_max},
          {"min", filter_min},
          {"sum", filter_sum},
          {"map", filter_map},
          {"select", filter_select},
          {"reject", filter_reject},
          {"selectattr", filter_select_attribute},
          {"rejectattr", filter_reject_attribute}};
}

}  // namespace nanocp::text::jinja
