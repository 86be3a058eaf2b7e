#include "text/jinja/template.h"

#include <new>
#include <utility>

#include "text/jinja/parser.h"
#include "text/jinja/template_error.h"

namespace nanocp::text::jinja {
namespace {

Error error_of(const TemplateError& error, const std::string& name) {
  const bool is_limit = error.kind() == TemplateError::Kind::kLimit;
  return {is_limit ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument,
          name + ": " + error.what()};
}

}  // namespace

Result<Template> Template::parse(std::string_view source, const std::string& name) {
  try {
    return Template(std::make_shared<const Block>(jinja::parse(source)), name);
  } catch (const TemplateError& error) {
    return error_of(error, name);
  }
}

Result<std::string> Template::render(const Dict& variables,
                                     const Interpreter::StrftimeNow& strftime_now,
                                     const Limits& limits) const {
  try {
    Meter meter(limits);
    Interpreter interpreter(variables, strftime_now, meter);
    return interpreter.run(*root_);
  } catch (const TemplateError& error) {
    return error_of(error, name_);
  } catch (const std::bad_alloc&) {
    return resource_exhausted(name_ + ": no memory left");
  }
}

}  // namespace nanocp::text::jinja
