// A value of a JSON file together with where it stands, so that every complaint names file and
// field. Used while a file is parsed; must not outlive the document.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nanocp::text {

// Parses `content`; nesting is limited, and the message of an error has the position in the file.
Result<nlohmann::json> parse_json(std::string_view content, const std::string& name);

// The same with members in the order of the file, for what templates print. Objects with so many
// members that looking them up takes long are refused.
Result<nlohmann::ordered_json> parse_ordered_json(std::string_view content,
                                                  const std::string& name);

class JsonField {
 public:
  // The root of `document`.
  JsonField(const nlohmann::json& document, std::string file)
      : value_(&document), file_(std::move(file)) {}

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }

  // A missing member reads as null. Requires: an object.
  JsonField member(const std::string& key) const;
  // Requires: an array with more than `index` elements.
  JsonField element(size_t index) const;

  Result<Unit> expect_object() const;
  Result<Unit> expect_array() const;
  Result<std::string> string() const;
  Result<bool> boolean(bool if_null) const;
  Result<int64_t> integer(int64_t low, int64_t high) const;

  // "FILE: FIELD <complaint>".
  Error invalid(const std::string& complaint) const;
  Error unsupported(const std::string& complaint) const;

 private:
  JsonField(const nlohmann::json* value, std::string file, std::string path)
      : value_(value), file_(std::move(file)), path_(std::move(path)) {}
  std::string where() const;

  const nlohmann::json* value_;
  std::string file_;
  std::string path_;
};

// `text` fit for one line of an error message: shortened, without control characters.
std::string shown(std::string_view text);

}  // namespace nanocp::text
