#include "text/jinja/value.h"

#include <algorithm>

namespace nanocp::text::jinja {

Value::Value(List items) {
  for (const Value& item : items) depth_ = std::max(depth_, item.depth());
  ++depth_;
  data_ = std::make_shared<const List>(std::move(items));
}

Value::Value(Dict items) {
  for (const auto& item : items) depth_ = std::max(depth_, item.second.depth());
  ++depth_;
  data_ = std::make_shared<const Dict>(std::move(items));
}

Value::Value(std::shared_ptr<LoopState> value) {
  for (const Value& item : *value->items) depth_ = std::max(depth_, item.depth());
  ++depth_;
  data_ = std::move(value);
}

Value::Value(BoundMethod value) : depth_(value.object->depth()) {
  data_ = std::move(value);
}

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = std::make_shared<const Undefined>(Undefined{std::move(message)});
  return value;
}

const Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : dict()) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool Value::truthy() const {
  if (is_none() || is_undefined()) return false;
  if (is_integer()) return integer() != 0;
  if (is_float()) return number() != 0.0;
  if (is_string()) return !string().empty();
  if (is_list()) return !list().empty();
  if (is_dict()) return !dict().empty();
  return true;
}

std::string_view Value::type_name() const {
  if (is_none()) return "NoneType";
  if (is_undefined()) return "Undefined";
  if (is_bool()) return "bool";
  if (is_integer()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_list()) return "list";
  if (is_dict()) return "dict";
  if (as_namespace() != nullptr) return "Namespace";
  if (as_loop() != nullptr) return "LoopContext";
  if (as_macro() != nullptr) return "Macro";
  return "builtin_function_or_method";
}

}  // namespace nanocp::text::jinja
