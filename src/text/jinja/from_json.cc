#include "text/jinja/from_json.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace nanocp::text::jinja {
namespace {

using nlohmann::ordered_json;

Result<Value> from_array(const ordered_json& json, const std::string& name, int32_t depth_max) {
  List items;
  items.reserve(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    const ordered_json& element = json[i];
    if (element.is_string()) {
      items.emplace_back(element.get_ref<const std::string&>());
      continue;
    }
    NANOCP_ASSIGN_OR_RETURN(
        Value value, from_json(element, name + "[" + std::to_string(i) + "]", depth_max - 1));
    items.push_back(std::move(value));
  }
  return Value(std::move(items));
}

Result<Value> from_object(const ordered_json& json, const std::string& name, int32_t depth_max) {
  Dict items;
  items.reserve(json.size());
  for (const auto& [key, element] : json.items()) {
    std::string path = name;
    path.append(".").append(key);
    NANOCP_ASSIGN_OR_RETURN(Value value, from_json(element, path, depth_max - 1));
    items.emplace_back(key, std::move(value));
  }
  return Value(std::move(items));
}

}  // namespace

Result<Value> from_json(const ordered_json& json, const std::string& name, int32_t depth_max) {
  if (depth_max < 0) return invalid_argument(name + " is nested too deeply");
  if (json.is_null()) return Value();
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_string()) return Value(json.get_ref<const std::string&>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) {
    return invalid_argument(name + " is an integer outside of 64 bits");
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_array()) return from_array(json, name, depth_max);
  if (json.is_object()) return from_object(json, name, depth_max);
  return invalid_argument(name + " is not JSON");
}

}  // namespace nanocp::text::jinja
