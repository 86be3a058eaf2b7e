#include "model/config_reader.h"

#include <cmath>
#include <limits>
#include <utility>

#include "model/printable.h"

namespace nanocp::model {

using nlohmann::json;

std::string describe_value(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return printable(value.dump(-1, ' ', true, json::error_handler_t::replace), 60);
}

ConfigReader::ConfigReader(const json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) reject("found " + describe_value(object) + " instead of an object");
}

const json* ConfigReader::find(const char* name) const {
  if (!object_->is_object()) return nullptr;
  const auto found = object_->find(name);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::fail(ErrorCode code, const std::string& what) {
  if (!error_) error_ = Error{code, where_ + ": " + what};
}

void ConfigReader::adopt(const ConfigReader& other) {
  if (!error_) error_ = other.error_;
}

Status ConfigReader::status() const {
  if (error_) return *error_;
  return ok_status();
}

void ConfigReader::reject_value(const char* name, const json& value, const std::string& wanted) {
  reject(std::string(name) + " must be " + wanted + ", found " + describe_value(value));
}

int64_t ConfigReader::checked_integer(const char* name, const json& value, Range range) {
  bool fits = value.is_number_integer();
  if (value.is_number_unsigned()) {
    fits = value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  }
  const int64_t found = fits ? value.get<int64_t>() : range.min;
  if (!fits || found < range.min || found > range.max) {
    reject_value(
        name, value,
        "a whole number from " + std::to_string(range.min) + " to " + std::to_string(range.max));
    return range.min;
  }
  return found;
}

std::optional<int64_t> ConfigReader::find_integer(Names names, Range range) {
  std::optional<int64_t> result;
  const char* first_name = nullptr;
  for (const char* name : names) {
    const json* value = find(name);
    if (value == nullptr) continue;
    const int64_t found = checked_integer(name, *value, range);
    if (result && *result != found) {
      reject(std::string(first_name) + " is " + std::to_string(*result) + " but " + name + " is " +
             std::to_string(found));
    }
    if (!result) first_name = name;
    result = result.value_or(found);
  }
  return result;
}

int64_t ConfigReader::integer(Names names, Range range) {
  const auto found = find_integer(names, range);
  if (!found) reject(std::string(*names.begin()) + " is missing");
  return found.value_or(range.min);
}

int64_t ConfigReader::integer_or(Names names, Range range, int64_t fallback) {
  return find_integer(names, range).value_or(fallback);
}

double ConfigReader::number_or(const char* name, double fallback) {
  const json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    reject_value(name, *value, "a number");
    return fallback;
  }
  return value->get<double>();
}

double ConfigReader::positive_or(const char* name, double fallback) {
  const double found = number_or(name, fallback);
  if (found > 0 && found <= 1e30) return found;
  reject(std::string(name) + " must be above 0 and at most 1e30, found " + std::to_string(found));
  return fallback;
}

bool ConfigReader::boolean_or(const char* name, bool fallback) {
  const json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    reject_value(name, *value, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string ConfigReader::text_or(const char* name, const std::string& fallback) {
  const json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    reject_value(name, *value, "a text");
    return fallback;
  }
  return value->get<std::string>();
}

std::vector<int64_t> ConfigReader::integers(const char* name, Range range) {
  const json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array()) return {checked_integer(name, *value, range)};
  std::vector<int64_t> found;
  for (const json& item : *value) found.push_back(checked_integer(name, item, range));
  return found;
}

std::vector<std::string> ConfigReader::texts(const char* name) {
  const json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array()) {
    reject_value(name, *value, "a list of texts");
    return {};
  }
  std::vector<std::string> found;
  for (const json& item : *value) {
    if (!item.is_string()) {
      reject_value(name, item, "a list of texts");
      return {};
    }
    found.push_back(item.get<std::string>());
  }
  return found;
}

std::optional<ConfigReader> ConfigReader::object(const char* name) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  return ConfigReader(*value, where_ + ": " + name);
}

}  // namespace nanocp::model
