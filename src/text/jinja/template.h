// A parsed template. Immutable after parsing, so that one serves all threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

class Template {
 public:
  // `name` stands for the template in messages.
  static Result<Template> parse(std::string_view source, const std::string& name);

  // What the template prints for `variables`. Errors name the template; a message given to
  // raise_exception follows the name as it is.
  Result<std::string> render(const Dict& variables, const Interpreter::StrftimeNow& strftime_now,
                             const Limits& limits) const;

 private:
  Template(std::shared_ptr<const Block> root, std::string name)
      : root_(std::move(root)), name_(std::move(name)) {}

  std::shared_ptr<const Block> root_;
  std::string name_;
};

}  // namespace nanocp::text::jinja
