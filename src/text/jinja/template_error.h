// How parsing and rendering stop inside this folder. Never leaves it: Template turns it into a
// Result.
#pragma once

#include <stdexcept>
#include <string>

namespace nanocp::text::jinja {

class TemplateError : public std::runtime_error {
 public:
  enum class Kind {
    kSyntax,   // the template is not one that we can run
    kRuntime,  // it went wrong for these values
    kRaised,   // it called raise_exception: the message is the template's own
    kLimit,    // a limit of Limits
  };

  TemplateError(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

[[noreturn]] inline void fail(const std::string& message) {
  throw TemplateError(TemplateError::Kind::kRuntime, message);
}

}  // namespace nanocp::text::jinja
