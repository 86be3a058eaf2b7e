// A JSON schema as parsed: its members in their order, references found, and schemas that must hold
// together made into one. One thread; schemas that are handed out live as long as the document.
#pragma once

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nanocp::grammar {

using Schema = nlohmann::ordered_json;

// Where a schema stands, for messages: a JSON pointer.
std::string below(const std::string& path, std::string_view key);
Error wrong_schema(const std::string& path, const std::string& complaint);
Error uncovered_schema(const std::string& path, const std::string& complaint);

class SchemaDocument {
 public:
  // Checks size, nesting, and that each keyword is known; see keywords in schema_document.cc.
  static Result<SchemaDocument> parse(std::string_view text);

  const Schema& root() const { return *root_; }
  // What "#/..." points to.
  Result<const Schema*> find(const std::string& reference, const std::string& path);
  // Whether the schema says anything besides the keyword and annotations.
  static bool has_besides(const Schema& schema, std::string_view keyword);

  // A schema that holds where both do. Part of neither may be left out, so what cannot be joined is
  // an error.
  Result<const Schema*> both(const Schema& a, const Schema& b, const std::string& path);
  // `schema` with what its $ref points to, and the parts of its allOf, put in its place.
  Result<const Schema*> flat(const Schema& schema, const std::string& path);
  // The schema without a keyword.
  Result<const Schema*> without(const Schema& schema, const std::string& keyword,
                                const std::string& path);

 private:
  SchemaDocument() = default;
  Result<const Schema*> keep(Schema schema, const std::string& path);
  Result<const Schema*> joined_parts(const Schema& schema, const std::string& path);

  std::deque<Schema> kept_;
  const Schema* root_ = nullptr;
  std::map<std::string, const Schema*> found_;  // by reference
  size_t num_kept_ = 0;                         // values in kept_
  int depth_ = 0;                               // of joins within joins
};

}  // namespace nanocp::grammar
