#include "api/output/tool_types.h"

#include <nlohmann/json.hpp>

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

const Json* member(const Json& value, std::string_view key) {
  if (!value.is_object()) return nullptr;
  const auto found = value.find(key);
  return found == value.end() ? nullptr : &*found;
}

struct Accepts {
  bool string = false;
  bool null = false;
  bool other = false;

  void add(const Json& type) { (type == "string" ? string : type == "null" ? null : other) = true; }
};

void add_types(const Json& schema, Accepts& accepts) {
  if (const Json* type = member(schema, "type")) {
    if (type->is_array()) {
      for (const Json& each : *type) accepts.add(each);
    } else {
      accepts.add(*type);
    }
    return;
  }
  for (const char* choice : {"anyOf", "oneOf"}) {
    const Json* options = member(schema, choice);
    if (options == nullptr || !options->is_array()) continue;
    for (const Json& option : *options) {
      if (const Json* type = member(option, "type")) accepts.add(*type);
    }
  }
  if (const Json* values = member(schema, "enum"); values != nullptr && values->is_array()) {
    for (const Json& value : *values) {
      (value.is_string() ? accepts.string : value.is_null() ? accepts.null : accepts.other) = true;
    }
  }
}

ArgumentType type_of_schema(const Json& schema) {
  Accepts accepts;
  add_types(schema, accepts);
  if (accepts.other || !accepts.string) return ArgumentType::kOther;
  return accepts.null ? ArgumentType::kNullableString : ArgumentType::kString;
}

}  // namespace

ToolTypes::ToolTypes(const Json* tools) {
  if (tools == nullptr || !tools->is_array()) return;
  for (const Json& tool : *tools) {
    const Json* function = member(tool, "function");
    const Json* name = function == nullptr ? nullptr : member(*function, "name");
    const Json* parameters = function == nullptr ? nullptr : member(*function, "parameters");
    const Json* properties = parameters == nullptr ? nullptr : member(*parameters, "properties");
    if (name == nullptr || !name->is_string() || properties == nullptr ||
        !properties->is_object()) {
      continue;
    }
    auto& types = types_[name->get<std::string>()];
    for (const auto& [key, schema] : properties->items()) types[key] = type_of_schema(schema);
  }
}

ArgumentType ToolTypes::type_of(std::string_view tool, std::string_view argument) const {
  const auto types = types_.find(tool);
  if (types == types_.end()) return ArgumentType::kOther;
  const auto type = types->second.find(argument);
  return type == types->second.end() ? ArgumentType::kOther : type->second;
}

}  // namespace nanocp::api
