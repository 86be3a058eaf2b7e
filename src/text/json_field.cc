#include "text/json_field.h"

#include <algorithm>
#include <vector>

#include "text/unicode.h"

namespace nanocp::text {
namespace {

constexpr size_t kNestingMax = 64;
const nlohmann::json kNull;

// Pairs of members of one object, added up over all objects: each member that is read is compared
// with those before it.
constexpr int64_t kMemberPairsMax = int64_t{1} << 22;

struct Shape {
  size_t depth = 0;  // the deepest nesting of objects and arrays
  int64_t num_member_pairs = 0;
};

// Of valid JSON; brackets and colons in strings do not count.
Shape shape_of(std::string_view content) {
  Shape shape;
  std::vector<int64_t> num_members = {0};  // of the objects that are open
  bool in_string = false;
  for (size_t i = 0; i < content.size() && shape.depth <= kNestingMax; ++i) {
    const char c = content[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == ':') {
      shape.num_member_pairs += num_members.back()++;
    } else if (c == '{' || c == '[') {
      num_members.push_back(0);
      shape.depth = std::max(shape.depth, num_members.size() - 1);
    } else if ((c == '}' || c == ']') && num_members.size() > 1) {
      num_members.pop_back();
    }
  }
  return shape;
}

template <typename Json>
Result<Json> parse(std::string_view content, const std::string& name) {
  try {
    return Json::parse(content);
  } catch (const nlohmann::json::parse_error& error) {
    return invalid_argument(name + ": not valid JSON near byte " + std::to_string(error.byte));
  } catch (const nlohmann::json::exception&) {
    return invalid_argument(name + ": not valid JSON (a number is out of range)");
  }
}

Error too_deep(const std::string& name) {
  return invalid_argument(name + ": JSON nested deeper than " + std::to_string(kNestingMax) +
                          " levels");
}

}  // namespace

Result<nlohmann::json> parse_json(std::string_view content, const std::string& name) {
  if (shape_of(content).depth > kNestingMax) return too_deep(name);
  return parse<nlohmann::json>(content, name);
}

Result<nlohmann::ordered_json> parse_ordered_json(std::string_view content,
                                                  const std::string& name) {
  const Shape shape = shape_of(content);
  if (shape.depth > kNestingMax) return too_deep(name);
  if (shape.num_member_pairs > kMemberPairsMax) {
    return invalid_argument(name + ": an object has too many members");
  }
  return parse<nlohmann::ordered_json>(content, name);
}

JsonField JsonField::member(const std::string& key) const {
  const auto found = value_->find(key);
  const nlohmann::json* value = found == value_->end() ? &kNull : &*found;
  return {value, file_, path_.empty() ? key : path_ + "." + key};
}

JsonField JsonField::element(size_t index) const {
  return {&(*value_)[index], file_, path_ + "[" + std::to_string(index) + "]"};
}

Result<Unit> JsonField::expect_object() const {
  if (!value_->is_object()) return invalid("must be an object");
  return Unit{};
}

Result<Unit> JsonField::expect_array() const {
  if (!value_->is_array()) return invalid("must be an array");
  return Unit{};
}

Result<std::string> JsonField::string() const {
  if (!value_->is_string()) return invalid("must be a string");
  return value_->get<std::string>();
}

Result<bool> JsonField::boolean(bool if_null) const {
  if (is_null()) return if_null;
  if (!value_->is_boolean()) return invalid("must be true or false");
  return value_->get<bool>();
}

Result<int64_t> JsonField::integer(int64_t low, int64_t high) const {
  const auto out_of_range = [&] {
    return invalid("must be between " + std::to_string(low) + " and " + std::to_string(high));
  };
  if (!value_->is_number_integer()) return invalid("must be an integer");
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX) return out_of_range();
  const auto number = value_->get<int64_t>();
  if (number < low || number > high) return out_of_range();
  return number;
}

Error JsonField::invalid(const std::string& complaint) const {
  return invalid_argument(where() + " " + complaint);
}

Error JsonField::unsupported(const std::string& complaint) const {
  return nanocp::unsupported(where() + " " + complaint);
}

std::string JsonField::where() const {
  return file_ + ": " + (path_.empty() ? "the document" : path_);
}

std::string shown(std::string_view text) {
  constexpr size_t kShownMax = 40;
  std::string valid;
  append_valid_utf8(text.substr(0, kShownMax), true, valid);
  for (char& c : valid) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + valid + (text.size() > kShownMax ? "...'" : "'");
}

}  // namespace nanocp::text
