#include "grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/check.h"
#include "grammar/json_text.h"
#include "grammar/limits.h"
#include "grammar/schema_document.h"
#include "grammar/string_formats.h"
#include "text/json_field.h"

namespace nanocp::grammar {
namespace {

constexpr int kDepthMax = 256;  // of schemas within schemas, references that are joined included

const Schema* member(const Schema& schema, const char* keyword) {
  const auto found = schema.find(keyword);
  return found == schema.end() ? nullptr : &*found;
}

bool has_any(const Schema& schema, std::initializer_list<const char*> keywords) {
  return std::any_of(keywords.begin(), keywords.end(),
                     [&](const char* keyword) { return member(schema, keyword) != nullptr; });
}

Error error_at(const std::string& place, const Error& error) {
  return {error.code, text::shown(place) + ": " + error.message};
}

class SchemaBuilder {
 public:
  SchemaBuilder(Builder& builder, SchemaDocument& document)
      : builder_(builder), document_(document), json_(builder) {}

  Result<NodeId> build(const Schema& schema, const std::string& path, NodeId next);

 private:
  struct Property {
    std::string name;
    const Schema* schema;
    std::string path;
    bool is_required;
  };

  Result<NodeId> build_object_schema(const Schema& schema, const std::string& path, NodeId next);
  Result<NodeId> reference(const std::string& target, const std::string& path, NodeId next);
  Result<NodeId> alternatives(const Schema& schema, const char* keyword, const std::string& path,
                              NodeId next);
  Result<NodeId> values(const Schema& schema, const std::string& path, NodeId next);
  Result<std::vector<std::string>> types_of(const Schema& schema, const std::string& path) const;
  Result<NodeId> typed(const std::string& type, const Schema& schema, const std::string& path,
                       NodeId next);
  Result<NodeId> string(const Schema& schema, const std::string& path, NodeId next);
  Result<NodeId> matching_string(const Schema& schema, const std::string& path,
                                 const Builder::Count& length, NodeId next);
  Result<NodeId> number(const Schema& schema, bool is_integer, const std::string& path,
                        NodeId next);
  Result<NodeId> array(const Schema& schema, const std::string& path, NodeId next);
  Result<NodeId> array_items(const Schema& schema, const Schema* rest, const std::string& path,
                             const Builder::Count& count, NodeId close);
  Result<NodeId> object(const Schema& schema, const std::string& path, NodeId next);
  Result<std::vector<Property>> properties_of(const Schema& schema, const std::string& path) const;
  Result<NodeId> more_members(const Schema& schema, const std::vector<Property>& properties,
                              const std::string& path, NodeId close);
  Result<Builder::Count> count_of(const Schema& schema, const char* min, const char* max,
                                  const std::string& path) const;
  Result<std::optional<Bound>> bound_of(const Schema& schema, bool is_low,
                                        const std::string& path) const;

  Builder& builder_;
  SchemaDocument& document_;
  JsonText json_;
  std::map<std::string, RuleId> references_;
  int depth_ = 0;
  int num_visits_ = 0;
};

Result<NodeId> SchemaBuilder::build(const Schema& schema, const std::string& path, NodeId next) {
  if (schema.is_boolean()) {
    return schema == true ? json_.any_value(next) : builder_.never();
  }
  if (++num_visits_ > kSchemaVisitsMax) {
    return wrong_schema(path, "the schema is too large: more than " +
                                  std::to_string(kSchemaVisitsMax) + " schemas");
  }
  if (builder_.full()) return builder_.never();  // which finish() reports
  if (depth_ >= kDepthMax) return wrong_schema(path, "the schema is nested too deeply");
  ++depth_;
  auto built = build_object_schema(schema, path, next);
  --depth_;
  return built;
}

Result<NodeId> SchemaBuilder::build_object_schema(const Schema& given, const std::string& path,
                                                  NodeId next) {
  if (const Schema* target = member(given, "$ref");
      target != nullptr && target->is_string() && !SchemaDocument::has_besides(given, "$ref")) {
    return reference(*target, below(path, "$ref"), next);
  }
  NANOCP_ASSIGN_OR_RETURN(const Schema* flat, document_.flat(given, path));
  if (flat->is_boolean()) return build(*flat, path, next);
  const Schema& schema = *flat;
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (member(schema, keyword) != nullptr) return alternatives(schema, keyword, path, next);
  }
  std::vector<NodeId> starts;
  if (const Schema* nullable = member(schema, "nullable");
      nullable != nullptr && *nullable == true) {
    starts.push_back(builder_.literal("null", next));
  }
  if (has_any(schema, {"enum", "const"})) {
    NANOCP_ASSIGN_OR_RETURN(const NodeId node, values(schema, path, next));
    starts.push_back(node);
    return builder_.split(starts);
  }
  NANOCP_ASSIGN_OR_RETURN(const std::vector<std::string> types, types_of(schema, path));
  if (types.empty()) starts.push_back(json_.any_value(next));
  for (const std::string& type : types) {
    NANOCP_ASSIGN_OR_RETURN(const NodeId node, typed(type, schema, path, next));
    starts.push_back(node);
  }
  return builder_.split(starts);
}

// A rule for each place that is referred to, so that it may contain itself.
Result<NodeId> SchemaBuilder::reference(const std::string& target, const std::string& path,
                                        NodeId next) {
  if (const auto found = references_.find(target); found != references_.end()) {
    return builder_.call(found->second, next);
  }
  NANOCP_ASSIGN_OR_RETURN(const Schema* schema, document_.find(target, path));
  const RuleId rule = builder_.add_rule("the schema " + text::shown(target), true);
  references_.emplace(target, rule);
  NANOCP_ASSIGN_OR_RETURN(const NodeId start, build(*schema, target.substr(1), builder_.end()));
  builder_.define_rule(rule, start);
  return builder_.call(rule, next);
}

// What stands beside the keyword holds for each alternative.
Result<NodeId> SchemaBuilder::alternatives(const Schema& schema, const char* keyword,
                                           const std::string& path, NodeId next) {
  const bool stands_alone = !SchemaDocument::has_besides(schema, keyword);
  const Schema* rest = nullptr;
  if (!stands_alone) {
    NANOCP_ASSIGN_OR_RETURN(rest, document_.without(schema, keyword, path));
  }
  const Schema& parts = *member(schema, keyword);
  std::vector<NodeId> starts;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string place = below(below(path, keyword), std::to_string(i));
    const Schema* part = &parts[i];
    if (!stands_alone) {
      NANOCP_ASSIGN_OR_RETURN(part, document_.both(*rest, *part, place));
    }
    NANOCP_ASSIGN_OR_RETURN(const NodeId start, build(*part, place, next));
    starts.push_back(start);
  }
  return builder_.split(starts);
}

bool has_type(const Schema& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "number") return value.is_number();
  if (!value.is_number()) return false;
  return value.is_number_integer() || std::floor(value.get<double>()) == value.get<double>();
}

// enum and const: the values as JSON. Other keywords may only be of those that are looked at here.
Result<NodeId> SchemaBuilder::values(const Schema& schema, const std::string& path, NodeId next) {
  NANOCP_ASSIGN_OR_RETURN(const std::vector<std::string> types, types_of(schema, path));
  const Schema* list = member(schema, "enum");
  const Schema* only = member(schema, "const");
  if (list != nullptr && (!list->is_array() || list->empty())) {
    return wrong_schema(below(path, "enum"), "must be a list that is not empty");
  }
  for (const char* keyword : {"pattern", "format", "minLength", "maxLength", "minimum", "maximum",
                              "exclusiveMinimum", "exclusiveMaximum", "items", "prefixItems",
                              "minItems", "maxItems", "properties", "required"}) {
    if (member(schema, keyword) == nullptr) continue;
    return uncovered_schema(below(path, keyword), "it is not supported beside enum or const");
  }
  const Schema single = only == nullptr ? Schema() : Schema::array({*only});
  const Schema& candidates = list == nullptr ? single : *list;
  std::vector<std::string> texts;
  for (const Schema& value : candidates) {
    const bool fits_type =
        types.empty() || std::any_of(types.begin(), types.end(), [&](const std::string& type) {
          return has_type(value, type);
        });
    const bool fits = fits_type && (only == nullptr || value == *only);
    if (fits) texts.push_back(value.dump());
  }
  return builder_.one_of(std::move(texts), next);
}

// Without a type: that of the keywords which are there; none: any value.
Result<std::vector<std::string>> SchemaBuilder::types_of(const Schema& schema,
                                                         const std::string& path) const {
  std::vector<std::string> types;
  const Schema* type = member(schema, "type");
  if (type == nullptr) {
    if (has_any(schema, {"enum", "const"})) return types;
    if (has_any(schema, {"properties", "required", "additionalProperties"})) {
      types.emplace_back("object");
    }
    if (has_any(schema, {"items", "prefixItems", "minItems", "maxItems"}))
      types.emplace_back("array");
    if (has_any(schema, {"pattern", "minLength", "maxLength", "format"}))
      types.emplace_back("string");
    if (has_any(schema, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
      types.emplace_back("number");
    }
    return types;
  }
  const Schema list = type->is_array() ? *type : Schema::array({*type});
  for (const Schema& name : list) {
    constexpr const char* kTypes[] = {"string", "number", "integer", "boolean",
                                      "null",   "array",  "object"};
    const bool is_known = name.is_string() &&
                          std::find(std::begin(kTypes), std::end(kTypes), name) != std::end(kTypes);
    if (!is_known) {
      return wrong_schema(below(path, "type"),
                          text::shown(name.dump()) +
                              " is no type: use string, number, integer, boolean, null, array or "
                              "object");
    }
    types.push_back(name);
  }
  // An integer is a number, too.
  const bool has_number = std::find(types.begin(), types.end(), "number") != types.end();
  if (has_number) std::erase(types, "integer");
  if (types.empty()) return wrong_schema(below(path, "type"), "must not be an empty list");
  return types;
}

Result<NodeId> SchemaBuilder::typed(const std::string& type, const Schema& schema,
                                    const std::string& path, NodeId next) {
  if (type == "string") return string(schema, path, next);
  if (type == "number") return number(schema, false, path, next);
  if (type == "integer") return number(schema, true, path, next);
  if (type == "boolean") return builder_.one_of({"true", "false"}, next);
  if (type == "null") return builder_.literal("null", next);
  return type == "array" ? array(schema, path, next) : object(schema, path, next);
}

Result<Builder::Count> SchemaBuilder::count_of(const Schema& schema, const char* min,
                                               const char* max, const std::string& path) const {
  Builder::Count count = {0, kUnbounded};
  for (const char* keyword : {min, max}) {
    const Schema* value = member(schema, keyword);
    if (value == nullptr) continue;
    const double number = value->is_number() ? value->get<double>() : -1.0;
    if (number < 0 || std::floor(number) != number) {
      return wrong_schema(below(path, keyword), "must be a whole number, 0 or larger");
    }
    if (number > kRepeatMax) {
      if (keyword == max) continue;  // no output is that long
      return uncovered_schema(below(path, keyword),
                              "at most " + std::to_string(kRepeatMax) + " is supported");
    }
    (keyword == min ? count.min : count.max) = static_cast<uint32_t>(number);
  }
  if (count.min > count.max) {
    return wrong_schema(below(path, min), "must not be above " + std::string(max));
  }
  return count;
}

Result<NodeId> SchemaBuilder::string(const Schema& schema, const std::string& path, NodeId next) {
  NANOCP_ASSIGN_OR_RETURN(const Builder::Count length,
                          count_of(schema, "minLength", "maxLength", path));
  if (has_any(schema, {"pattern", "format"})) return matching_string(schema, path, length, next);
  return json_.string(length, next);
}

Result<NodeId> SchemaBuilder::matching_string(const Schema& schema, const std::string& path,
                                              const Builder::Count& length, NodeId next) {
  const Schema* pattern = member(schema, "pattern");
  const Schema* format = member(schema, "format");
  const char* keyword = pattern != nullptr ? "pattern" : "format";
  const std::string place = below(path, keyword);
  const Schema* given = pattern != nullptr ? pattern : format;
  NANOCP_CHECK(given != nullptr);
  const Schema& value = *given;
  if (!value.is_string()) return wrong_schema(place, "must be a string");
  std::string expression = value;
  if (format != nullptr && format->is_string() && pattern == nullptr) {
    const std::optional<std::string> known = format_pattern(expression);
    if (!known) {
      return uncovered_schema(place, "the format " + text::shown(expression) +
                                         " is not supported; supported are " + format_names());
    }
    if (known->empty()) return json_.string(length, next);  // it says how to treat the string
    expression = *known;
  } else if (format != nullptr &&
             !(format->is_string() && is_free_format(format->get<std::string>()))) {
    return uncovered_schema(below(path, "format"), "it is not supported beside pattern");
  }
  const auto regex = parse_regex(expression, RegexMatch::kSearch);
  if (!regex.ok()) return error_at(place, regex.error());
  const TextLength text = text_length(*regex);
  const bool fits = text.min >= length.min && (length.max == kUnbounded || text.max <= length.max);
  if (!fits) {
    const char* limit = text.min < length.min ? "minLength" : "maxLength";
    return uncovered_schema(below(path, limit),
                            std::string("it is not supported beside a ") + keyword +
                                " that allows other lengths: put the limit into a pattern, e.g. "
                                "^[a-z]{1,10}$");
  }
  return json_.shared(
      std::string(keyword) + " " + expression, false,
      [&] { return json_.matching_string(*regex, builder_.end()); }, next);
}

// A number in JSON as a bound; whole ones keep all their digits.
Result<Decimal> decimal_of_json(const Schema& value) {
  if (value.is_number_float()) return decimal_of(value.get<double>());
  std::string digits = value.dump();
  Decimal decimal;
  decimal.is_negative = digits.starts_with("-");
  if (decimal.is_negative) digits.erase(0, 1);
  decimal.whole = digits == "0" ? "" : digits;
  return decimal;
}

Result<std::optional<Bound>> SchemaBuilder::bound_of(const Schema& schema, bool is_low,
                                                     const std::string& path) const {
  std::optional<Bound> bound;
  for (const bool is_excluded : {false, true}) {
    const char* keyword = is_low ? (is_excluded ? "exclusiveMinimum" : "minimum")
                                 : (is_excluded ? "exclusiveMaximum" : "maximum");
    const Schema* value = member(schema, keyword);
    if (value == nullptr) continue;
    const std::string place = below(path, keyword);
    if (!value->is_number()) return wrong_schema(place, "must be a number");
    auto decimal = decimal_of_json(*value);
    if (!decimal.ok()) return error_at(place, decimal.error());
    const bool is_beyond = decimal->whole.size() > kWholeDigitsMax;
    // Nothing is generated that far out; it is a bound still, so that no exponent gets there.
    if (is_beyond && decimal->is_negative == is_low) {
      *decimal = largest_decimal(decimal->is_negative);
    } else if (is_beyond) {
      return uncovered_schema(
          place, "numbers have at most " + std::to_string(kWholeDigitsMax) + " digits");
    }
    const int order = bound ? compare(*decimal, bound->value) : 0;
    const bool is_stricter = !bound || (is_low ? order > 0 : order < 0) || order == 0;
    if (is_stricter) bound = Bound{.value = *decimal, .is_excluded = is_excluded};
  }
  return bound;
}

Result<NodeId> SchemaBuilder::number(const Schema& schema, bool is_integer, const std::string& path,
                                     NodeId next) {
  NumberRange range;
  NANOCP_ASSIGN_OR_RETURN(range.low, bound_of(schema, true, path));
  NANOCP_ASSIGN_OR_RETURN(range.high, bound_of(schema, false, path));
  range.is_integer = is_integer;
  return json_.number(range, next);
}

Result<NodeId> SchemaBuilder::array(const Schema& schema, const std::string& path, NodeId next) {
  NANOCP_ASSIGN_OR_RETURN(Builder::Count count, count_of(schema, "minItems", "maxItems", path));
  const Schema* items = member(schema, "items");
  const bool is_free = !has_any(schema, {"items", "prefixItems", "minItems", "maxItems"});
  if (is_free) return json_.any_array(next);
  static const Schema kAny = true;
  static const Schema kNone = false;
  const bool is_tuple =
      member(schema, "prefixItems") != nullptr || (items != nullptr && items->is_array());
  const Schema* rest = items;
  if (is_tuple && (items == nullptr || items->is_array())) rest = &kNone;
  if (!is_tuple && items == nullptr) rest = &kAny;
  const NodeId close = builder_.literal("]", next);
  NANOCP_ASSIGN_OR_RETURN(const NodeId inside, array_items(schema, rest, path, count, close));
  return builder_.literal("[", json_.space(inside));
}

// Items of places of their own, then equal ones; from the last to the first.
Result<NodeId> SchemaBuilder::array_items(const Schema& schema, const Schema* rest,
                                          const std::string& path, const Builder::Count& count,
                                          NodeId close) {
  static const Schema kNone = Schema::array();
  const Schema* prefix = member(schema, "prefixItems");
  const char* keyword = "prefixItems";
  if (prefix == nullptr) {
    const Schema* items = member(schema, "items");
    keyword = "items";
    prefix = items != nullptr && items->is_array() ? items : &kNone;
  }
  const auto num_prefix = static_cast<uint32_t>(
      std::min<size_t>(prefix->size(), std::min<uint32_t>(count.max, kRepeatMax)));
  const auto less = [](uint32_t a, uint32_t b) { return a == kUnbounded ? a : a - std::min(a, b); };
  // Of those that follow the places of their own.
  const Builder::Count more = {less(count.min, num_prefix), less(count.max, num_prefix)};
  std::optional<Error> failure;
  const auto item = [&](NodeId after) {
    auto built = build(*rest, below(path, "items"), after);
    if (!built.ok()) failure = built.error();
    return built.ok() ? *built : builder_.never();
  };
  const auto next_item = [&](NodeId after) {
    return builder_.literal(",", json_.space(item(after)));
  };
  const NodeId end = json_.space(close);  // behind an item
  NodeId node = close;
  if (num_prefix > 0) {
    node = builder_.repeat(more, next_item, end);
  } else if (count.max > 0) {
    const Builder::Count others = {less(count.min, 1), less(count.max, 1)};
    const NodeId first = item(builder_.repeat(others, next_item, end));
    node = count.min > 0 ? first : builder_.split({close, first});
  }
  if (failure) return *failure;
  for (uint32_t i = num_prefix; i > 0; --i) {
    const std::string place = below(below(path, keyword), std::to_string(i - 1));
    NANOCP_ASSIGN_OR_RETURN(NodeId start, build((*prefix)[i - 1], place, node));
    if (i > 1) start = builder_.literal(",", json_.space(start));
    node = count.min >= i ? start : builder_.split({i > 1 ? end : close, start});
  }
  return node;
}

Result<std::vector<SchemaBuilder::Property>> SchemaBuilder::properties_of(
    const Schema& schema, const std::string& path) const {
  static const Schema kAny = true;
  std::vector<Property> properties;
  if (const Schema* named = member(schema, "properties")) {
    if (!named->is_object()) return wrong_schema(below(path, "properties"), "must be an object");
    for (const auto& [name, inner] : named->items()) {
      properties.push_back({name, &inner, below(below(path, "properties"), name), false});
    }
  }
  const Schema* required = member(schema, "required");
  if (required == nullptr) return properties;
  const std::string place = below(path, "required");
  if (!required->is_array()) return wrong_schema(place, "must be a list of names");
  const Schema* additional = member(schema, "additionalProperties");
  for (const Schema& name : *required) {
    if (!name.is_string()) return wrong_schema(place, "must be a list of names");
    const auto found = std::find_if(properties.begin(), properties.end(),
                                    [&](const Property& p) { return p.name == name; });
    if (found != properties.end()) {
      found->is_required = true;
    } else {
      properties.push_back({name, additional == nullptr ? &kAny : additional, place, true});
    }
    if (properties.size() > kPropertiesMax) return wrong_schema(place, "has too many names");
  }
  return properties;
}

// Members of any other names, the first of them without a comma in front.
Result<NodeId> SchemaBuilder::more_members(const Schema& schema,
                                           const std::vector<Property>& properties,
                                           const std::string& path, NodeId end) {
  const Schema* additional = member(schema, "additionalProperties");
  const bool has_none = additional == nullptr || *additional == false;
  if (has_none) return builder_.never();
  std::vector<std::string> names;
  names.reserve(properties.size());
  for (const Property& property : properties) names.push_back(property.name);
  std::optional<Error> failure;
  const RuleId key = builder_.add_rule("a key", false);
  builder_.define_rule(key, json_.key_besides(std::move(names), builder_.end()));
  const auto one = [&](NodeId after) {
    auto value = build(*additional, below(path, "additionalProperties"), after);
    if (!value.ok()) failure = value.error();
    return builder_.call(key, json_.colon(value.ok() ? *value : builder_.never()));
  };
  const NodeId others = builder_.repeat(
      {0, kUnbounded}, [&](NodeId after) { return builder_.literal(",", json_.space(one(after))); },
      end);
  const NodeId first = one(others);
  if (failure) return *failure;
  return first;
}

// From the last member to the first: what may come with, and without, members in front.
Result<NodeId> SchemaBuilder::object(const Schema& schema, const std::string& path, NodeId next) {
  if (!has_any(schema, {"properties", "required", "additionalProperties"})) {
    return json_.any_object(next);
  }
  NANOCP_ASSIGN_OR_RETURN(const std::vector<Property> properties, properties_of(schema, path));
  const NodeId close = builder_.literal("}", next);
  const NodeId end = json_.space(close);  // behind a member
  // The first of the members that are left, without a comma.
  NANOCP_ASSIGN_OR_RETURN(NodeId members, more_members(schema, properties, path, end));
  bool may_close = true;
  for (size_t i = properties.size(); i > 0; --i) {
    const Property& property = properties[i - 1];
    const NodeId comma = builder_.literal(",", json_.space(members));
    const NodeId after = may_close ? builder_.split({end, comma}) : comma;
    NANOCP_ASSIGN_OR_RETURN(const NodeId value, build(*property.schema, property.path, after));
    const NodeId start = builder_.literal(Schema(property.name).dump(), json_.colon(value));
    members = property.is_required ? start : builder_.split({start, members});
    may_close = may_close && !property.is_required;
  }
  const NodeId inside = may_close ? builder_.split({close, members}) : members;
  return builder_.literal("{", json_.space(inside));
}

}  // namespace

Result<NodeId> build_json_schema(Builder& builder, std::string_view schema_text) {
  NANOCP_ASSIGN_OR_RETURN(SchemaDocument document, SchemaDocument::parse(schema_text));
  SchemaBuilder schema(builder, document);
  return schema.build(document.root(), "", builder.end());
}

}  // namespace nanocp::grammar
