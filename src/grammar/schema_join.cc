#include "grammar/schema_join.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "grammar/schema_document.h"

namespace nanocp::grammar {
namespace {

bool has(const Schema& schema, const std::string& keyword) {
  return schema.find(keyword) != schema.end();
}

Schema both_of(const Schema& a, const Schema& b) {
  if (a == b) return a;
  return Schema{{"allOf", Schema::array({a, b})}};
}

Schema list_of(const Schema& value) {
  return value.is_array() ? value : Schema::array({value});
}

// OpenAPI's way to write a type with null.
Schema without_nullable(const Schema& schema) {
  if (!has(schema, "nullable")) return schema;
  Schema out = schema;
  out.erase("nullable");
  if (schema["nullable"] != true || !has(schema, "type")) return out;
  Schema types = list_of(schema["type"]);
  types.push_back("null");
  out["type"] = std::move(types);
  return out;
}

Schema common_types(const Schema& a, const Schema& b) {
  Schema common = Schema::array();
  const Schema other = list_of(b);
  const auto in_other = [&](const char* type) {
    return std::find(other.begin(), other.end(), type) != other.end();
  };
  for (const Schema& type : list_of(a)) {
    if (std::find(other.begin(), other.end(), type) != other.end()) {
      common.push_back(type);
    } else if ((type == "integer" && in_other("number")) ||
               (type == "number" && in_other("integer"))) {
      common.push_back("integer");
    }
  }
  return common;
}

Schema common_values(const Schema& a, const Schema& b) {
  Schema common = Schema::array();
  for (const Schema& value : list_of(a)) {
    const Schema& other = b;
    if (std::find(other.begin(), other.end(), value) != other.end()) common.push_back(value);
  }
  return common;
}

Schema united(const Schema& a, const Schema& b) {
  Schema all = list_of(a);
  for (const Schema& name : list_of(b)) {
    if (std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  }
  return all;
}

// Properties of `from` that `out` lacks must also suit what `other` says of additional ones.
void add_properties(const Schema& from, const Schema& other, Schema& out) {
  if (!has(from, "properties")) return;
  const bool is_restricted = has(other, "additionalProperties");
  for (const auto& [name, schema] : from["properties"].items()) {
    const bool is_in_other = has(other, "properties") && has(other["properties"], name);
    if (out.find(name) != out.end()) continue;
    if (is_in_other) {
      out[name] = both_of(schema, other["properties"][name]);
    } else {
      out[name] = is_restricted ? both_of(schema, other["additionalProperties"]) : schema;
    }
  }
}

void join_objects(const Schema& a, const Schema& b, Schema& out) {
  if (has(a, "properties") || has(b, "properties")) {
    Schema properties = Schema::object();
    add_properties(a, b, properties);
    add_properties(b, a, properties);
    out["properties"] = std::move(properties);
  }
  if (!has(b, "additionalProperties")) return;
  out["additionalProperties"] = has(a, "additionalProperties")
                                    ? both_of(a["additionalProperties"], b["additionalProperties"])
                                    : b["additionalProperties"];
}

// Of keywords that bound a number: the stricter one.
bool keep_bound(const std::string& keyword, const Schema& other, Schema& value) {
  const bool is_low = keyword == "minimum" || keyword == "exclusiveMinimum" ||
                      keyword == "minLength" || keyword == "minItems";
  const bool is_high = keyword == "maximum" || keyword == "exclusiveMaximum" ||
                       keyword == "maxLength" || keyword == "maxItems";
  if (!is_low && !is_high) return false;
  if (!value.is_number() || !other.is_number()) return false;
  if (is_low ? other > value : other < value) value = other;
  return true;
}

bool is_said_once(const std::string& keyword) {
  return keyword == "title" || keyword == "description" || keyword == "default" ||
         keyword == "examples" || keyword.starts_with("$") || keyword == "definitions";
}

// A keyword that both have.
Status join_keyword(const std::string& keyword, const Schema& other, Schema& value,
                    const std::string& path) {
  if (value == other || is_said_once(keyword) || keep_bound(keyword, other, value)) {
    return ok_status();
  }
  if (keyword == "type") {
    value = common_types(value, other);
  } else if (keyword == "enum") {
    value = common_values(value, other);
  } else if (keyword == "required") {
    value = united(value, other);
  } else if (keyword == "items") {
    value = both_of(value, other);
  } else {
    return uncovered_schema(below(path, keyword),
                            "two schemas that must both hold differ in it, which is not supported");
  }
  return ok_status();
}

bool is_impossible(const Schema& schema) {
  const auto is_empty_list = [&](const char* keyword) {
    return has(schema, keyword) && schema[keyword].is_array() && schema[keyword].empty();
  };
  return is_empty_list("type") || is_empty_list("enum");
}

}  // namespace

Result<Schema> join_schemas(const Schema& first, const Schema& second, const std::string& path) {
  if (first.is_boolean()) return first == true ? second : first;
  if (second.is_boolean()) return second == true ? first : second;
  const Schema a = without_nullable(first);
  const Schema b = without_nullable(second);
  const bool mixes_items =
      (has(a, "prefixItems") && has(b, "items")) || (has(a, "items") && has(b, "prefixItems"));
  if (mixes_items) {
    return uncovered_schema(below(path, "prefixItems"),
                            "it cannot be joined with items of another schema");
  }
  Schema out = a;
  for (const auto& [keyword, other] : b.items()) {
    if (keyword == "properties" || keyword == "additionalProperties") continue;
    if (has(out, keyword)) {
      NANOCP_RETURN_IF_ERROR(join_keyword(keyword, other, out[keyword], path));
    } else {
      out[keyword] = other;
    }
  }
  join_objects(a, b, out);
  if (is_impossible(out)) return Schema(false);
  return out;
}

}  // namespace nanocp::grammar
