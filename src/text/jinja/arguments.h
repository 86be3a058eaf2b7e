// The evaluated arguments of a call. Plain data.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/template_error.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // By place or by name, or null.
  const Value* find(size_t index, std::string_view name) const {
    if (index < positional.size()) return &positional[index];
    for (const auto& [key, value] : named) {
      if (key == name) return &value;
    }
    return nullptr;
  }
  const Value& required(size_t index, std::string_view name) const {
    const Value* value = find(index, name);
    if (value == nullptr) fail("missing argument '" + std::string(name) + "'");
    return *value;
  }
  const std::string& string(size_t index, std::string_view name) const {
    const Value& value = required(index, name);
    if (!value.is_string()) fail("argument '" + std::string(name) + "' must be a string");
    return value.string();
  }
  int64_t integer(size_t index, std::string_view name, int64_t if_missing) const {
    const Value* value = find(index, name);
    if (value == nullptr || value->is_none()) return if_missing;
    if (!value->is_integer()) fail("argument '" + std::string(name) + "' must be an integer");
    return value->integer();
  }
  bool flag(size_t index, std::string_view name, bool if_missing) const {
    const Value* value = find(index, name);
    return value == nullptr ? if_missing : value->truthy();
  }
  // The arguments after the first `count`, for filters that call others.
  Arguments without_first(size_t count) const {
    Arguments rest{.positional = {}, .named = named};
    for (size_t i = count; i < positional.size(); ++i) rest.positional.push_back(positional[i]);
    return rest;
  }
};

}  // namespace nanocp::text::jinja
