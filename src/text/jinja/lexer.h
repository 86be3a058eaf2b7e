// Cuts a template into text and the tokens inside {{ }} and {% %}, with Jinja's rules for white
// space (trim_blocks and lstrip_blocks on, as chat templates expect). Pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nanocp::text::jinja {

struct Token {
  enum class Kind {
    kText,        // outside of tags; `text` is what is printed
    kPrintBegin,  // {{
    kPrintEnd,    // }}
    kBlockBegin,  // {%
    kBlockEnd,    // %}
    kName,
    kString,  // `text` with escapes resolved
    kInteger,
    kFloat,
    kOperator,  // `text` is one of + - * / // % ** ~ == != < <= > >= = . , : | ( ) [ ] { }
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int32_t line = 1;
};

// Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace nanocp::text::jinja
