#include "text/jinja/operations.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/characters.h"
#include "text/jinja/methods.h"

namespace nanocp::text::jinja {
namespace {

[[noreturn]] void fail_undefined(const Value& value) {
  fail(value.undefined_message());
}

std::string quoted_type(const Value& value) {
  std::string text("'");
  return text.append(value.type_name()).append("'");
}

[[noreturn]] void fail_operands(std::string_view op, const Value& left, const Value& right) {
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (op == "+" && left.is_string()) {
    fail("can only concatenate str (not \"" + std::string(right.type_name()) + "\") to str");
  }
  fail("unsupported operand type(s) for " + std::string(op) + ": " + quoted_type(left) + " and " +
       quoted_type(right));
}

// By reference: the result is written while the first argument is evaluated.
int64_t checked(bool overflowed, const int64_t& result) {
  if (overflowed) fail("integer overflow");
  return result;
}

int64_t floor_divide(int64_t left, int64_t right) {
  if (right == -1) {
    int64_t result = 0;
    return checked(__builtin_sub_overflow(int64_t{0}, left, &result), result);
  }
  const int64_t quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (int64_t i = 0; i < exponent && base != 1 && !(base == 0 && i > 0); ++i) {
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
    if (__builtin_mul_overflow(result, base, &result)) fail("integer overflow");
  }
  return result;
}

Value integers(std::string_view op, int64_t left, int64_t right) {
  int64_t result = 0;
  if (op == "+") return checked(__builtin_add_overflow(left, right, &result), result);
  if (op == "-") return checked(__builtin_sub_overflow(left, right, &result), result);
  if (op == "*") return checked(__builtin_mul_overflow(left, right, &result), result);
  if (op == "**" && right >= 0) return power(left, right);
  if (op == "**") return std::pow(static_cast<double>(left), static_cast<double>(right));
  if (right == 0) fail("division by zero");
  if (op == "/") return static_cast<double>(left) / static_cast<double>(right);
  const int64_t quotient = floor_divide(left, right);
  return op == "//" ? quotient : left - quotient * right;
}

Value floats(std::string_view op, double left, double right) {
  if (op == "+") return left + right;
  if (op == "-") return left - right;
  if (op == "*") return left * right;
  if (op == "**") return std::pow(left, right);
  if (right == 0.0) fail("float division by zero");
  if (op == "/") return left / right;
  const double quotient = std::floor(left / right);
  return op == "//" ? quotient : left - quotient * right;
}

Value repeated(const Value& value, int64_t count, Meter& meter) {
  count = std::max<int64_t>(count, 0);
  const auto size = static_cast<int64_t>(value.is_string() ? value.string().size()
                                                           : value.list().size() * sizeof(Value));
  if (size > 0 && count > meter.limits().memory_bytes_max / size) {
    Meter::stop("bytes of memory", meter.limits().memory_bytes_max);
  }
  if (value.is_string()) {
    std::string out;
    meter.allocate(static_cast<size_t>(size * count));
    for (int64_t i = 0; i < count && size > 0; ++i) out.append(value.string());
    return meter.make(std::move(out));
  }
  List out;
  meter.allocate(static_cast<size_t>(size * count));
  for (int64_t i = 0; i < count && size > 0; ++i) {
    out.insert(out.end(), value.list().begin(), value.list().end());
  }
  return meter.make(std::move(out));
}

Value concatenated(const Value& left, const Value& right, Meter& meter) {
  meter.touch((left.list().size() + right.list().size()) * sizeof(Value));
  List out = left.list();
  out.insert(out.end(), right.list().begin(), right.list().end());
  return meter.make(std::move(out));
}

bool equal_dicts(const Value& left, const Value& right, Meter& meter) {
  if (left.dict().size() != right.dict().size()) return false;
  for (const auto& [key, value] : left.dict()) {
    meter.touch(right.dict().size() * sizeof(Dict::value_type));
    const Value* other = right.find(key);
    if (other == nullptr || !equals(value, *other, meter)) return false;
  }
  return true;
}

// An index from the end if negative, or nothing if outside.
std::optional<size_t> place(int64_t index, size_t size) {
  if (index < 0) index += static_cast<int64_t>(size);
  if (index < 0 || index >= static_cast<int64_t>(size)) return std::nullopt;
  return static_cast<size_t>(index);
}

Value loop_attribute(const LoopState& loop, std::string_view name) {
  const auto size = static_cast<int64_t>(loop.items->size());
  const auto index = static_cast<int64_t>(loop.index);
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return size - index;
  if (name == "revindex0") return size - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == size;
  if (name == "length") return size;
  if (name == "depth") return int64_t{1};  // more only in recursive loops
  if (name == "depth0") return int64_t{0};
  if (name == "previtem" && index > 0) return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return (*loop.items)[loop.index + 1];
  return Value::undefined("'LoopContext' has no attribute '" + std::string(name) + "'");
}

// Of Jinja's messages: None, 'str object'.
std::string object_name(const Value& value) {
  return value.is_none() ? "None" : std::string(value.type_name()) + " object";
}

Value no_attribute(const Value& value, std::string_view name, Meter& meter) {
  constexpr size_t kShownMax = 64;
  meter.allocate(kShownMax * 2);
  std::string message("'");
  message.append(object_name(value)).append("' has no attribute '");
  return Value::undefined(message.append(name.substr(0, kShownMax)).append("'"));
}

}  // namespace

bool equals(const Value& left, const Value& right, Meter& meter) {
  meter.step();
  if (left.is_number() && right.is_number()) {
    if (left.is_integer() && right.is_integer()) return left.integer() == right.integer();
    return left.number() == right.number();
  }
  if (left.is_string() && right.is_string()) {
    meter.touch(std::min(left.string().size(), right.string().size()));
    return left.string() == right.string();
  }
  if (left.is_list() && right.is_list()) {
    if (left.list().size() != right.list().size()) return false;
    for (size_t i = 0; i < left.list().size(); ++i) {
      if (!equals(left.list()[i], right.list()[i], meter)) return false;
    }
    return true;
  }
  if (left.is_dict() && right.is_dict()) return equal_dicts(left, right, meter);
  if (left.as_namespace() != nullptr) return left.as_namespace() == right.as_namespace();
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

int compare(const Value& left, const Value& right, Meter& meter) {
  meter.step();
  if (left.is_integer() && right.is_integer()) {
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer() ? 1 : 0;
  }
  if (left.is_number() && right.is_number()) {
    return left.number() < right.number() ? -1 : left.number() > right.number() ? 1 : 0;
  }
  if (left.is_string() && right.is_string()) {
    meter.touch(std::min(left.string().size(), right.string().size()));
    return left.string().compare(right.string());
  }
  if (left.is_list() && right.is_list()) {
    const size_t size = std::min(left.list().size(), right.list().size());
    for (size_t i = 0; i < size; ++i) {
      const int order = compare(left.list()[i], right.list()[i], meter);
      if (order != 0) return order;
    }
    return left.list().size() < right.list().size()   ? -1
           : left.list().size() > right.list().size() ? 1
                                                      : 0;
  }
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  fail("'<' not supported between instances of " + quoted_type(left) + " and " +
       quoted_type(right));
}

bool contains(const Value& container, const Value& item, Meter& meter) {
  if (container.is_string()) {
    if (item.is_undefined()) fail_undefined(item);
    if (!item.is_string()) {
      fail("'in <string>' requires string as left operand, not " + std::string(item.type_name()));
    }
    meter.touch(container.string().size());
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_dict()) {
    meter.touch(container.dict().size() * sizeof(Dict::value_type));
    return item.is_string() && container.find(item.string()) != nullptr;
  }
  if (container.is_undefined()) return false;
  if (!container.is_list()) {
    fail("argument of type " + quoted_type(container) + " is not iterable");
  }
  return std::any_of(container.list().begin(), container.list().end(),
                     [&](const Value& element) { return equals(element, item, meter); });
}

Value binary(std::string_view op, const Value& left, const Value& right, Meter& meter) {
  if (op == "~") return meter.make(to_text(left, meter) + to_text(right, meter));
  if (left.is_number() && right.is_number()) {
    if (left.is_integer() && right.is_integer()) {
      return integers(op, left.integer(), right.integer());
    }
    return floats(op, left.number(), right.number());
  }
  if (op == "+" && left.is_string() && right.is_string()) {
    return meter.make(left.string() + right.string());
  }
  if (op == "+" && left.is_list() && right.is_list()) return concatenated(left, right, meter);
  if (op == "*") {
    const auto can_repeat = [](const Value& value) { return value.is_string() || value.is_list(); };
    if (can_repeat(left) && right.is_integer()) return repeated(left, right.integer(), meter);
    if (can_repeat(right) && left.is_integer()) return repeated(right, left.integer(), meter);
  }
  fail_operands(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integer()) return integers("-", 0, value.integer());
  if (value.is_float()) return -value.number();
  fail("bad operand type for unary -: " + quoted_type(value));
}

std::shared_ptr<const List> iterate(const Value& value, Meter& meter) {
  if (value.is_list()) return value.shared_list();
  List items;
  if (value.is_dict()) {
    meter.allocate(value.dict().size() * sizeof(Value));
    for (const auto& [key, unused] : value.dict()) items.push_back(meter.make(std::string(key)));
  } else if (value.is_string()) {
    meter.expect(value.string().size() * sizeof(std::string_view));
    for (const std::string_view character : characters_of(value.string())) {
      items.push_back(meter.make(std::string(character)));
      meter.step();
    }
  } else if (!value.is_undefined()) {
    fail(quoted_type(value) + " object is not iterable");
  }
  return meter.make(std::move(items)).shared_list();
}

int64_t length(const Value& value, Meter& meter) {
  if (value.is_string()) {
    meter.touch(value.string().size());
    return static_cast<int64_t>(num_characters(value.string()));
  }
  if (value.is_list()) return static_cast<int64_t>(value.list().size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().size());
  if (value.is_undefined()) return 0;
  fail("object of type " + quoted_type(value) + " has no len()");
}

Value attribute(const Value& value, std::string_view name, Meter& meter) {
  if (value.is_undefined()) fail_undefined(value);
  // As in Python, a method hides a key of its name; value["name"] asks for the key first.
  if (has_method(value, name)) {
    meter.allocate(2 * sizeof(Value));
    return BoundMethod{std::make_shared<const Value>(value), std::string(name)};
  }
  if (value.is_dict()) {
    meter.touch(value.dict().size() * sizeof(Dict::value_type));
    if (const Value* found = value.find(name)) return *found;
  }
  if (const Namespace* space = value.as_namespace()) {
    for (const auto& [key, held] : space->attributes) {
      if (key == name) return held;
    }
  }
  if (const LoopState* loop = value.as_loop()) return loop_attribute(*loop, name);
  return no_attribute(value, name, meter);
}

Value item(const Value& value, const Value& key, Meter& meter) {
  if (value.is_undefined()) fail_undefined(value);
  if (key.is_undefined()) fail_undefined(key);
  if (key.is_string()) {
    if (value.is_dict()) {
      meter.touch(value.dict().size() * sizeof(Dict::value_type));
      if (const Value* found = value.find(key.string())) return *found;
    }
    return attribute(value, key.string(), meter);
  }
  if (key.is_integer() && value.is_list()) {
    if (const auto index = place(key.integer(), value.list().size())) return value.list()[*index];
  }
  if (key.is_integer() && value.is_string()) {
    meter.touch(value.string().size());
    meter.expect(value.string().size() * sizeof(std::string_view));
    const auto characters = characters_of(value.string());
    if (const auto index = place(key.integer(), characters.size())) {
      return meter.make(std::string(characters[*index]));
    }
  }
  return Value::undefined(object_name(value) + " has no element " + to_text(key, meter));
}

namespace {

// The indices that Python's slice takes from a sequence of `size`.
std::vector<size_t> slice_indices(const SliceBounds& bounds, int64_t size) {
  if (bounds.step == 0) fail("slice step cannot be zero");
  const bool forward = bounds.step > 0;
  const auto clamp = [&](std::optional<int64_t> bound, int64_t if_missing) {
    if (!bound) return if_missing;
    const int64_t index = *bound < 0 ? *bound + size : *bound;
    return std::clamp<int64_t>(index, forward ? 0 : -1, forward ? size : size - 1);
  };
  const int64_t begin = clamp(bounds.begin, forward ? 0 : size - 1);
  const int64_t end = clamp(bounds.end, forward ? size : -1);
  // A longer step takes one element at most; bounding it keeps the index from overflowing.
  const int64_t step = std::clamp<int64_t>(bounds.step, -(size + 1), size + 1);
  std::vector<size_t> indices;
  for (int64_t i = begin; forward ? i < end : i > end; i += step) {
    indices.push_back(static_cast<size_t>(i));
  }
  return indices;
}

}  // namespace

Value slice(const Value& value, const SliceBounds& bounds, Meter& meter) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_list()) {
    meter.expect(value.list().size() * sizeof(size_t));
    List out;
    for (const size_t i : slice_indices(bounds, static_cast<int64_t>(value.list().size()))) {
      out.push_back(value.list()[i]);
    }
    return meter.make(std::move(out));
  }
  if (value.is_string()) {
    meter.touch(value.string().size());
    meter.expect(value.string().size() * sizeof(std::string_view));
    const auto characters = characters_of(value.string());
    std::string out;
    for (const size_t i : slice_indices(bounds, static_cast<int64_t>(characters.size()))) {
      out.append(characters[i]);
    }
    return meter.make(std::move(out));
  }
  fail(quoted_type(value) + " object is not subscriptable");
}

}  // namespace nanocp::text::jinja
