// Typed access to one JSON object of a config file. The first problem sticks and is reported by
// status(); after it every getter returns its fallback, so that parsing code reads straight down.
// Lives on the stack of one parse; one thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace nanocp::model {

class ConfigReader {
 public:
  // A key, or several spellings of it of which a config may use any; two that disagree are an
  // error.
  using Names = std::initializer_list<const char*>;
  struct Range {
    int64_t min;
    int64_t max;
  };

  // `object` outlives the reader. `where` starts every message.
  ConfigReader(const nlohmann::json& object, std::string where);

  // A key whose value is null counts as absent.
  bool has(const char* name) const { return find(name) != nullptr; }

  int64_t integer(Names names, Range range);  // absent: an error
  int64_t integer_or(Names names, Range range, int64_t fallback);
  double number_or(const char* name, double fallback);  // finite
  double positive_or(const char* name, double fallback);
  bool boolean_or(const char* name, bool fallback);
  std::string text_or(const char* name, const std::string& fallback);
  // Whole numbers; a single number counts as a list of one. Absent: empty.
  std::vector<int64_t> integers(const char* name, Range range);
  std::vector<std::string> texts(const char* name);
  // A reader of the object under `name`, which shares no state; nothing if absent.
  std::optional<ConfigReader> object(const char* name);

  // Records a problem: "<where>: <what>". The first one stays.
  void fail(ErrorCode code, const std::string& what);
  void reject(const std::string& what) { fail(ErrorCode::kInvalidArgument, what); }
  void reject_unsupported(const std::string& what) { fail(ErrorCode::kUnsupported, what); }
  // Takes over the other reader's problem, if it has one.
  void adopt(const ConfigReader& other);

  bool ok() const { return !error_.has_value(); }
  Status status() const;

 private:
  const nlohmann::json* find(const char* name) const;
  std::optional<int64_t> find_integer(Names names, Range range);
  int64_t checked_integer(const char* name, const nlohmann::json& value, Range range);
  void reject_value(const char* name, const nlohmann::json& value, const std::string& wanted);

  const nlohmann::json* object_;
  std::string where_;
  std::optional<Error> error_;
};

// A JSON value as it may appear in a one-line message.
std::string describe_value(const nlohmann::json& value);

}  // namespace nanocp::model
