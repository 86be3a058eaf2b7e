// Result<T>: a value or an Error, for failures that are expected (bad file, no room, timeout).
// Owned by value, no threads involved. Bugs use NANOCP_CHECK instead.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace nanocp {

enum class ErrorCode {
  kInvalidArgument,    // the caller's input is wrong: flag, prompt, config, file content
  kNotFound,           // a named thing (file, tensor, policy) does not exist
  kUnsupported,        // well-formed, but not something NanoCP can do
  kResourceExhausted,  // does not fit: memory, blocks, queue
  kDeadlineExceeded,   // a wait ran out; the message says who waited for whom
  kAborted,            // stopped because another instance failed or the caller cancelled
  kInternal,           // the operating system or a device failed
};

// One line that names the file, field or limit, and what to do where that is not obvious.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(*-explicit-*)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(*-explicit-*)

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // Requires: ok().
  T& value() & { return checked(); }
  const T& value() const& { return const_cast<Result*>(this)->checked(); }
  T&& value() && { return std::move(checked()); }
  T& operator*() { return checked(); }
  const T& operator*() const { return const_cast<Result*>(this)->checked(); }
  T* operator->() { return &checked(); }
  const T* operator->() const { return &const_cast<Result*>(this)->checked(); }

  // Requires: !ok().
  const Error& error() const {
    NANOCP_CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  T& checked() {
    if (!ok()) check_failed(__FILE__, __LINE__, "value of a failed Result: " + error().message);
    return std::get<0>(state_);
  }
  std::variant<T, Error> state_;
};

struct Unit {};
// Success without a value: `return Unit{};` or ok_status().
using Status = Result<Unit>;
inline Status ok_status() {
  return Unit{};
}

inline Error invalid_argument(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}
inline Error not_found(std::string message) {
  return {ErrorCode::kNotFound, std::move(message)};
}
inline Error unsupported(std::string message) {
  return {ErrorCode::kUnsupported, std::move(message)};
}
inline Error resource_exhausted(std::string message) {
  return {ErrorCode::kResourceExhausted, std::move(message)};
}

}  // namespace nanocp

// Returns the error of `expr` (a Result) from the current function, or goes on.
#define NANOCP_RETURN_IF_ERROR(expr)                       \
  do {                                                     \
    auto&& nanocp_status = (expr);                         \
    if (!nanocp_status.ok()) return nanocp_status.error(); \
  } while (0)

#define NANOCP_CONCAT_INNER(a, b) a##b
#define NANOCP_CONCAT(a, b) NANOCP_CONCAT_INNER(a, b)

// NANOCP_ASSIGN_OR_RETURN(auto x, f()): x is the value of f(), or the error is returned.
#define NANOCP_ASSIGN_OR_RETURN(declaration, expr) \
  NANOCP_ASSIGN_OR_RETURN_IMPL(NANOCP_CONCAT(nanocp_result_, __LINE__), declaration, expr)
#define NANOCP_ASSIGN_OR_RETURN_IMPL(result, declaration, expr) \
  auto result = (expr);                                         \
  if (!result.ok()) return result.error();                      \
  declaration = std::move(result).value()
