#include "grammar/schema_document.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <unordered_set>
#include <utility>

#include "grammar/limits.h"
#include "grammar/schema_join.h"
#include "text/json_field.h"

namespace nanocp::grammar {
namespace {

constexpr int kReferencesMax = 64;
constexpr size_t kNameBytesMax = 512;
constexpr size_t kJoinedValuesMax = 300'000;

// Keywords that say nothing about which texts are allowed.
bool is_annotation(std::string_view keyword) {
  static const std::unordered_set<std::string_view> kWords = {
      "$schema",    "$id",         "$comment",  "$defs",           "definitions",
      "title",      "description", "default",   "examples",        "example",
      "deprecated", "readOnly",    "writeOnly", "contentEncoding", "contentMediaType",
      "strict",     "name",        "$anchor",   "externalDocs",    "xml"};
  return kWords.contains(keyword) || keyword.starts_with("x-");
}

bool is_covered(std::string_view keyword) {
  static const std::unordered_set<std::string_view> kWords = {"type",
                                                              "properties",
                                                              "required",
                                                              "additionalProperties",
                                                              "items",
                                                              "minItems",
                                                              "maxItems",
                                                              "enum",
                                                              "const",
                                                              "prefixItems",
                                                              "anyOf",
                                                              "oneOf",
                                                              "allOf",
                                                              "$ref",
                                                              "pattern",
                                                              "minLength",
                                                              "maxLength",
                                                              "format",
                                                              "minimum",
                                                              "maximum",
                                                              "nullable",
                                                              "exclusiveMinimum",
                                                              "exclusiveMaximum"};
  return kWords.contains(keyword);
}

// Values with which a keyword that is not covered restricts nothing.
bool says_nothing(std::string_view keyword, const Schema& value) {
  if (keyword == "uniqueItems") return value == false;
  if (keyword == "minProperties" || keyword == "minContains") return value == 0;
  if (keyword == "unevaluatedProperties" || keyword == "additionalItems") return value == true;
  if (keyword == "unevaluatedItems") return value == true;
  return false;
}

Status check_keywords(const Schema& schema, const std::string& path);

Status check_keyword(const std::string& keyword, const Schema& value, const std::string& path) {
  if (keyword == "properties" || keyword == "$defs" || keyword == "definitions") {
    if (!value.is_object()) return wrong_schema(path, "must be an object");
    for (const auto& [name, inner] : value.items()) {
      NANOCP_RETURN_IF_ERROR(check_keywords(inner, below(path, name)));
    }
    return ok_status();
  }
  const bool is_list = keyword == "anyOf" || keyword == "oneOf" || keyword == "allOf" ||
                       keyword == "prefixItems" || (keyword == "items" && value.is_array());
  if (is_list) {
    if (!value.is_array()) return wrong_schema(path, "must be a list of schemas");
    if (value.empty() && keyword != "items" && keyword != "prefixItems") {
      return wrong_schema(path, "must not be empty");
    }
    for (size_t i = 0; i < value.size(); ++i) {
      NANOCP_RETURN_IF_ERROR(check_keywords(value[i], below(path, std::to_string(i))));
    }
    return ok_status();
  }
  const bool is_schema = keyword == "items" || keyword == "additionalProperties";
  return is_schema ? check_keywords(value, path) : ok_status();
}

// Nested no deeper than the text may be.
Status check_keywords(const Schema& schema, const std::string& path) {
  if (schema.is_boolean()) return ok_status();
  if (!schema.is_object()) return wrong_schema(path, "must be a schema: an object, true or false");
  for (const auto& [keyword, value] : schema.items()) {
    if (is_annotation(keyword) && keyword != "$defs" && keyword != "definitions") continue;
    const std::string place = below(path, keyword);
    if (!is_covered(keyword) && !is_annotation(keyword)) {
      if (says_nothing(keyword, value)) continue;
      return uncovered_schema(place, "the keyword " + text::shown(keyword) + " is not supported");
    }
    NANOCP_RETURN_IF_ERROR(check_keyword(keyword, value, place));
  }
  return ok_status();
}

// Members are kept in a list, in which names are looked for one by one.
Status check_sizes(const nlohmann::json& value) {
  if (value.is_object()) {
    if (value.size() > kPropertiesMax) {
      return invalid_argument("the schema has an object of " + std::to_string(value.size()) +
                              " members, at most " + std::to_string(kPropertiesMax) +
                              " are allowed");
    }
    for (const auto& [name, inner] : value.items()) {
      if (name.size() > kNameBytesMax) {
        return invalid_argument("the schema has a name of " + std::to_string(name.size()) +
                                " bytes, at most " + std::to_string(kNameBytesMax) +
                                " are allowed");
      }
    }
  }
  if (value.is_structured()) {
    for (const auto& inner : value) NANOCP_RETURN_IF_ERROR(check_sizes(inner));
  }
  return ok_status();
}

size_t count_values(const Schema& value) {
  size_t count = 1;
  if (value.is_structured()) {
    for (const Schema& inner : value) count += count_values(inner);
  }
  return count;
}

// Of a JSON pointer: ~1 is /, ~0 is ~, and as part of a URI %20 is a space.
std::string unescaped(std::string_view part) {
  std::string out;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '~' && i + 1 < part.size()) {
      out += part[++i] == '1' ? '/' : '~';
      continue;
    }
    int value = 0;
    const bool is_code = part[i] == '%' && i + 2 < part.size() &&
                         std::from_chars(part.data() + i + 1, part.data() + i + 3, value, 16).ptr ==
                             part.data() + i + 3;
    out += is_code ? static_cast<char>(value) : part[i];
    if (is_code) i += 2;
  }
  return out;
}

// Null if there is none.
const Schema* child(const Schema& value, const std::string& name) {
  if (value.is_object()) {
    const auto found = value.find(name);
    return found == value.end() ? nullptr : &*found;
  }
  size_t index = 0;
  const char* end = name.data() + name.size();
  const bool is_index = value.is_array() && std::from_chars(name.data(), end, index).ptr == end;
  return is_index && !name.empty() && index < value.size() ? &value[index] : nullptr;
}

}  // namespace

std::string below(const std::string& path, std::string_view key) {
  std::string out = path;
  out.reserve(path.size() + key.size() + 1);
  out += '/';
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

Error wrong_schema(const std::string& path, const std::string& complaint) {
  return invalid_argument(text::shown(path.empty() ? "the schema" : path) + ": " + complaint);
}

Error uncovered_schema(const std::string& path, const std::string& complaint) {
  return unsupported(text::shown(path.empty() ? "the schema" : path) + ": " + complaint);
}

Result<SchemaDocument> SchemaDocument::parse(std::string_view text) {
  if (text.size() > kTextBytesMax) {
    return invalid_argument("the schema has " + std::to_string(text.size()) + " bytes, at most " +
                            std::to_string(kTextBytesMax) + " are allowed");
  }
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json checked, text::parse_json(text, "the schema"));
  NANOCP_RETURN_IF_ERROR(check_sizes(checked));
  SchemaDocument document;
  document.root_ = &document.kept_.emplace_back(Schema::parse(text));
  NANOCP_RETURN_IF_ERROR(check_keywords(*document.root_, ""));
  return document;
}

Result<const Schema*> SchemaDocument::find(const std::string& reference, const std::string& path) {
  if (const auto known = found_.find(reference); known != found_.end()) return known->second;
  if (!reference.starts_with("#") || (reference.size() > 1 && reference[1] != '/')) {
    return uncovered_schema(path,
                            "only references into the schema itself (#/...) are supported, "
                            "not " +
                                text::shown(reference));
  }
  const Schema* value = root_;
  size_t at = 1;
  while (at < reference.size()) {
    const size_t end = std::min(reference.find('/', at + 1), reference.size());
    value = child(*value, unescaped(std::string_view(reference).substr(at + 1, end - at - 1)));
    if (value == nullptr) {
      return wrong_schema(path, "there is no " + text::shown(reference) + " in the schema");
    }
    at = end;
  }
  // The place may be one that no schema stands at.
  NANOCP_RETURN_IF_ERROR(check_keywords(*value, reference.substr(1)));
  found_.emplace(reference, value);
  return value;
}

bool SchemaDocument::has_besides(const Schema& schema, std::string_view keyword) {
  const auto items = schema.items();
  return std::any_of(items.begin(), items.end(), [&](const auto& item) {
    return item.key() != keyword && !is_annotation(item.key());
  });
}

Result<const Schema*> SchemaDocument::keep(Schema schema, const std::string& path) {
  num_kept_ += count_values(schema);
  if (num_kept_ > kJoinedValuesMax) {
    return wrong_schema(path, "its schemas that must hold together are too large");
  }
  return &kept_.emplace_back(std::move(schema));
}

Result<const Schema*> SchemaDocument::without(const Schema& schema, const std::string& keyword,
                                              const std::string& path) {
  Schema copy = schema;
  copy.erase(keyword);
  return keep(std::move(copy), path);
}

Result<const Schema*> SchemaDocument::both(const Schema& a, const Schema& b,
                                           const std::string& path) {
  if (depth_ >= kReferencesMax) {
    return wrong_schema(path, "references and allOf are nested too deeply or refer to themselves");
  }
  ++depth_;
  NANOCP_ASSIGN_OR_RETURN(const Schema* flat_a, flat(a, path));
  NANOCP_ASSIGN_OR_RETURN(const Schema* flat_b, flat(b, path));
  --depth_;
  NANOCP_ASSIGN_OR_RETURN(Schema schema, join_schemas(*flat_a, *flat_b, path));
  if (schema.size() > kPropertiesMax) return wrong_schema(path, "too many keywords together");
  return keep(std::move(schema), path);
}

Result<const Schema*> SchemaDocument::joined_parts(const Schema& schema, const std::string& path) {
  const Schema& parts = schema["allOf"];
  NANOCP_ASSIGN_OR_RETURN(const Schema* sum, without(schema, "allOf", path));
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string place = below(below(path, "allOf"), std::to_string(i));
    NANOCP_ASSIGN_OR_RETURN(sum, both(*sum, parts[i], place));
  }
  return sum;
}

Result<const Schema*> SchemaDocument::flat(const Schema& schema, const std::string& path) {
  const Schema* flat = &schema;
  for (int i = 0; i < kReferencesMax; ++i) {
    if (!flat->is_object()) return flat;
    if (const auto reference = flat->find("$ref"); reference != flat->end()) {
      if (!reference->is_string()) return wrong_schema(below(path, "$ref"), "must be a string");
      NANOCP_ASSIGN_OR_RETURN(const Schema* target, find(*reference, below(path, "$ref")));
      if (has_besides(*flat, "$ref")) {
        NANOCP_ASSIGN_OR_RETURN(const Schema* rest, without(*flat, "$ref", path));
        NANOCP_ASSIGN_OR_RETURN(flat, both(*rest, *target, path));
      } else {
        flat = target;
      }
    } else if (flat->find("allOf") != flat->end()) {
      NANOCP_ASSIGN_OR_RETURN(flat, joined_parts(*flat, path));
    } else {
      return flat;
    }
  }
  return wrong_schema(path, "references are nested too deeply or refer to themselves");
}

}  // namespace nanocp::grammar
