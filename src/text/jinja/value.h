// The values of a template: those of JSON, with Python's rules, and a few that only templates have.
// Lists and dicts never change after they are built; namespaces do. Reference counted, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nanocp::text::jinja {

struct Statement;
class Value;

using List = std::vector<Value>;
// In the order of insertion, as Python's dicts.
using Dict = std::vector<std::pair<std::string, Value>>;

// What is missing. Printing it gives nothing; using it is an error with this message.
struct Undefined {
  std::string message;
};
struct None {};

// namespace(): the one kind of object whose attributes a template can set. The interpreter owns it.
struct Namespace {
  Dict attributes;
};

// `loop` inside a for statement.
struct LoopState {
  std::shared_ptr<const List> items;
  size_t index = 0;
};

// A macro and the default values of its parameters are in the statement that defines it.
struct Macro {
  const Statement* definition;
};

// range, namespace, raise_exception and the like, by name.
struct GlobalFunction {
  std::string name;
};

// A method of a value, before the call: "a b".split.
struct BoundMethod {
  std::shared_ptr<const Value> object;
  std::string name;
};

class Value {
 public:
  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}     // NOLINT(*-explicit-*)
  Value(int64_t value) : data_(value) {}  // NOLINT(*-explicit-*)
  Value(double value) : data_(value) {}   // NOLINT(*-explicit-*)
  Value(std::string value)                // NOLINT(*-explicit-*)
      : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}  // NOLINT(*-explicit-*)
  Value(const char* value) : Value(std::string(value)) {}       // NOLINT(*-explicit-*)
  // The nesting of `items` is the caller's to check: depth().
  Value(List items);                                                    // NOLINT(*-explicit-*)
  Value(Dict items);                                                    // NOLINT(*-explicit-*)
  Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}  // NOLINT(*-explicit-*)
  Value(std::shared_ptr<LoopState> value);                              // NOLINT(*-explicit-*)
  Value(Macro value) : data_(value) {}                                  // NOLINT(*-explicit-*)
  Value(GlobalFunction value) : data_(std::move(value)) {}              // NOLINT(*-explicit-*)
  Value(BoundMethod value);                                             // NOLINT(*-explicit-*)
  static Value undefined(std::string message);

  bool is_undefined() const { return get<UndefinedPtr>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_bool() const { return get<bool>() != nullptr; }
  // True and False are integers, as in Python.
  bool is_integer() const { return get<int64_t>() != nullptr || is_bool(); }
  bool is_float() const { return get<double>() != nullptr; }
  bool is_number() const { return is_integer() || is_float(); }
  bool is_string() const { return get<StringPtr>() != nullptr; }
  bool is_list() const { return get<ListPtr>() != nullptr; }
  bool is_dict() const { return get<DictPtr>() != nullptr; }
  bool is_callable() const {
    return get<Macro>() != nullptr || get<GlobalFunction>() != nullptr ||
           get<BoundMethod>() != nullptr;
  }

  // Requires: the kind.
  const std::string& string() const { return **get<StringPtr>(); }
  const List& list() const { return **get<ListPtr>(); }
  const std::shared_ptr<const List>& shared_list() const { return *get<ListPtr>(); }
  const Dict& dict() const { return **get<DictPtr>(); }
  int64_t integer() const { return is_bool() ? int64_t{*get<bool>()} : *get<int64_t>(); }
  double number() const { return is_float() ? *get<double>() : static_cast<double>(integer()); }
  bool boolean() const { return *get<bool>(); }
  const std::string& undefined_message() const { return (*get<UndefinedPtr>())->message; }

  // Null if of another kind.
  Namespace* as_namespace() const {
    const auto* found = get<std::shared_ptr<Namespace>>();
    return found == nullptr ? nullptr : found->get();
  }
  const LoopState* as_loop() const {
    const auto* found = get<std::shared_ptr<LoopState>>();
    return found == nullptr ? nullptr : found->get();
  }
  const Macro* as_macro() const { return get<Macro>(); }
  const GlobalFunction* as_function() const { return get<GlobalFunction>(); }
  const BoundMethod* as_method() const { return get<BoundMethod>(); }

  // The value of `key`, or null. Requires: is_dict().
  const Value* find(std::string_view key) const;
  bool truthy() const;
  // Of lists, dicts and loops inside each other; 0 for anything else. Bounding it bounds every walk
  // over a value and its destruction.
  int32_t depth() const { return depth_; }
  // Python's name of the type, for messages.
  std::string_view type_name() const;

 private:
  using UndefinedPtr = std::shared_ptr<const Undefined>;
  using StringPtr = std::shared_ptr<const std::string>;
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }

  std::variant<None, UndefinedPtr, bool, int64_t, double, StringPtr, ListPtr, DictPtr,
               std::shared_ptr<Namespace>, std::shared_ptr<LoopState>, Macro, GlobalFunction,
               BoundMethod>
      data_;
  int32_t depth_ = 0;
};

}  // namespace nanocp::text::jinja
