#include "api/body_reader.h"

#include <array>
#include <charconv>
#include <utility>

#include "text/json_field.h"

namespace nanocp::api {
namespace {

// As short as it reads back: "0.1", "2".
std::string shown_number(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

std::string shown_range(const std::string& low, const std::string& high) {
  return "must be between " + low + " and " + high;
}

bool is_integer(const nlohmann::ordered_json& value, Range<int64_t> range) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) return false;
  return value.get<int64_t>() >= range.low && value.get<int64_t>() <= range.high;
}

}  // namespace

ApiResult<nlohmann::ordered_json> parse_body(std::string_view body) {
  Result<nlohmann::ordered_json> document = text::parse_ordered_json(body, "the request body");
  if (!document.ok()) return from_error(document.error());
  if (!document->is_object()) {
    return ApiError{.message =
                        "the request body must be a JSON object, not " + kind_of(document.value())};
  }
  return std::move(document).value();
}

std::string kind_of(const nlohmann::ordered_json& value) {
  using Kind = nlohmann::json::value_t;
  switch (value.type()) {
    case Kind::null:
      return "null";
    case Kind::object:
      return "an object";
    case Kind::array:
      return "an array";
    case Kind::string:
      return "a string";
    case Kind::boolean:
      return "a boolean";
    case Kind::number_integer:
    case Kind::number_unsigned:
      return "an integer";
    case Kind::number_float:
      return "a number with a fraction";
    default:
      return "something else";
  }
}

const BodyReader::Json* BodyReader::find(const std::string& name) {
  known_.insert(name);
  const auto found = object_->find(name);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void BodyReader::ignore(std::initializer_list<const char*> names) {
  known_.insert(names.begin(), names.end());
}

bool BodyReader::boolean(const std::string& name, bool if_absent) {
  const Json* value = find(name);
  if (value == nullptr) return if_absent;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, "must be true or false, not " + kind_of(*value));
  return if_absent;
}

void BodyReader::fail_integer(const std::string& name, const Json& value, Range<int64_t> range) {
  if (!value.is_number_integer()) {
    fail(name, "must be an integer, not " + kind_of(value));
  } else {
    fail(name, shown_range(std::to_string(range.low), std::to_string(range.high)) + ", not " +
                   value.dump());
  }
}

int64_t BodyReader::integer(const std::string& name, Range<int64_t> range, int64_t if_absent) {
  const Json* value = find(name);
  if (value == nullptr) return if_absent;
  if (is_integer(*value, range)) return value->get<int64_t>();
  fail_integer(name, *value, range);
  return if_absent;
}

double BodyReader::number(const std::string& name, Range<double> range, double if_absent) {
  const Json* value = find(name);
  if (value == nullptr) return if_absent;
  if (!value->is_number()) {
    fail(name, "must be a number, not " + kind_of(*value));
    return if_absent;
  }
  const auto number = value->get<double>();
  if (number >= range.low && number <= range.high) return number;
  fail(name,
       shown_range(shown_number(range.low), shown_number(range.high)) + ", not " + value->dump());
  return if_absent;
}

std::string BodyReader::string(const std::string& name, size_t size_bytes_max,
                               std::string if_absent) {
  const Json* value = find(name);
  if (value == nullptr) return if_absent;
  if (!value->is_string()) {
    fail(name, "must be a string, not " + kind_of(*value));
    return if_absent;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() <= size_bytes_max) return text;
  fail(name, "has " + std::to_string(text.size()) + " bytes, the limit is " +
                 std::to_string(size_bytes_max));
  return if_absent;
}

std::vector<int64_t> BodyReader::integers(const std::string& name, Range<int64_t> range,
                                          size_t count_max) {
  const Json* value = array(name, count_max);
  return value == nullptr ? std::vector<int64_t>() : integers(*value, name, range);
}

std::vector<int64_t> BodyReader::integers(const Json& list, const std::string& name,
                                          Range<int64_t> range) {
  std::vector<int64_t> result;
  result.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& entry = list[i];
    if (!is_integer(entry, range)) {
      fail_integer(name + "[" + std::to_string(i) + "]", entry, range);
      break;
    }
    result.push_back(entry.get<int64_t>());
  }
  return result;
}

std::vector<std::string> BodyReader::strings(const std::string& name, size_t size_bytes_max,
                                             size_t count_max) {
  std::vector<std::string> result;
  const Json* value = find(name);
  if (value == nullptr) return result;
  const bool is_list = value->is_array();
  if (!is_list && !value->is_string()) {
    fail(name, "must be a string or an array of strings, not " + kind_of(*value));
    return result;
  }
  if (is_list && array(name, count_max) == nullptr) return result;
  for (size_t i = 0; i < (is_list ? value->size() : 1); ++i) {
    const Json& entry = is_list ? (*value)[i] : *value;
    const std::string entry_name = is_list ? name + "[" + std::to_string(i) + "]" : name;
    if (!entry.is_string()) {
      fail(entry_name, "must be a string, not " + kind_of(entry));
      break;
    }
    const auto& text = entry.get_ref<const std::string&>();
    if (text.empty()) fail(entry_name, "must not be empty");
    if (text.size() > size_bytes_max) {
      fail(entry_name, "has " + std::to_string(text.size()) + " bytes, the limit is " +
                           std::to_string(size_bytes_max));
    }
    result.push_back(text);
  }
  return result;
}

const BodyReader::Json* BodyReader::object(const std::string& name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  fail(name, "must be an object, not " + kind_of(*value));
  return nullptr;
}

const BodyReader::Json* BodyReader::array(const std::string& name, size_t count_max) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    fail(name, "must be an array, not " + kind_of(*value));
    return nullptr;
  }
  if (value->size() <= count_max) return value;
  fail(name, "has " + std::to_string(value->size()) + " elements, the limit is " +
                 std::to_string(count_max));
  return nullptr;
}

void BodyReader::fail(const std::string& name, const std::string& complaint,
                      const std::string& code) {
  const std::string path = path_of(name);
  fail(ApiError{.message = path + " " + complaint, .param = path, .code = code});
}

void BodyReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

std::vector<std::string> BodyReader::unknown() const {
  std::vector<std::string> names;
  for (const auto& item : object_->items()) {
    if (!known_.contains(item.key())) names.push_back(path_of(item.key()));
  }
  return names;
}

}  // namespace nanocp::api
