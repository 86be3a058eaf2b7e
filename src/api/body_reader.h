// Reads the fields of a request's body. The first complaint is kept and reading goes on with
// defaults, so that a parser reads everything it knows and asks for the error once. Used by one
// parser; must not outlive the document.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "api/api_error.h"

namespace nanocp::api {

// Inclusive.
template <typename T>
struct Range {
  T low;
  T high;
};

// Parses a body that must be an object.
ApiResult<nlohmann::ordered_json> parse_body(std::string_view body);

// The value's kind as clients know it, e.g. "a string".
std::string kind_of(const nlohmann::ordered_json& value);

class BodyReader {
 public:
  using Json = nlohmann::ordered_json;

  // Requires: an object. `path` is where it stands in the body, empty for the body itself.
  explicit BodyReader(const Json& object, std::string path = {})
      : object_(&object), path_(std::move(path)) {}

  // The member, which counts as known from now on; null if it is missing or null.
  const Json* find(const std::string& name);
  // Without a complaint about their values.
  void ignore(std::initializer_list<const char*> names);

  bool boolean(const std::string& name, bool if_absent);
  int64_t integer(const std::string& name, Range<int64_t> range, int64_t if_absent);
  double number(const std::string& name, Range<double> range, double if_absent);
  std::string string(const std::string& name, size_t size_bytes_max, std::string if_absent);
  std::vector<int64_t> integers(const std::string& name, Range<int64_t> range, size_t count_max);
  // Of a list that stands at `name`.
  std::vector<int64_t> integers(const Json& list, const std::string& name, Range<int64_t> range);
  // A string, or an array of them; none may be empty.
  std::vector<std::string> strings(const std::string& name, size_t size_bytes_max,
                                   size_t count_max);
  // Null if it is absent; complains if it is something else.
  const Json* object(const std::string& name);
  const Json* array(const std::string& name, size_t count_max);

  // Keeps the complaint, unless there is one. `name` may be a path below this object.
  void fail(const std::string& name, const std::string& complaint, const std::string& code = {});
  void fail(ApiError error);
  bool failed() const { return error_.has_value(); }
  // Requires: failed().
  const ApiError& error() const { return *error_; }

  // Members that nobody has asked for, by path.
  std::vector<std::string> unknown() const;
  std::string path_of(const std::string& name) const {
    return path_.empty() ? name : path_ + "." + name;
  }

 private:
  void fail_integer(const std::string& name, const Json& value, Range<int64_t> range);

  const Json* object_;
  std::string path_;
  std::unordered_set<std::string> known_;
  std::optional<ApiError> error_;
};

}  // namespace nanocp::api
