// The tokens of a template with a place in them, for the parsers. One thread.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/lexer.h"
#include "text/jinja/limits.h"
#include "text/jinja/template_error.h"

namespace nanocp::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token take() {
    Token token = current();
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }

  bool is(Token::Kind kind) const { return current().kind == kind; }
  bool is_operator(std::string_view text) const {
    return is(Token::Kind::kOperator) && current().text == text;
  }
  bool is_name(std::string_view text) const {
    return is(Token::Kind::kName) && current().text == text;
  }
  bool take_operator(std::string_view text) {
    if (!is_operator(text)) return false;
    take();
    return true;
  }
  bool take_name(std::string_view text) {
    if (!is_name(text)) return false;
    take();
    return true;
  }
  void expect_operator(std::string_view text) {
    if (!take_operator(text)) fail_here("expected '" + std::string(text) + "'");
  }
  std::string expect_name() {
    if (!is(Token::Kind::kName)) fail_here("expected a name");
    return take().text;
  }

  [[noreturn]] void fail_here(const std::string& message) const {
    fail_at(current().line, message);
  }
  [[noreturn]] static void fail_at(int32_t line, const std::string& message) {
    throw TemplateError(TemplateError::Kind::kSyntax,
                        "line " + std::to_string(line) + ": " + message);
  }

  // Held while something that can contain itself is parsed.
  class Nesting {
   public:
    explicit Nesting(TokenStream& stream) : stream_(stream) {
      if (++stream_.depth_ > kParseDepthMax) stream_.fail_here("nested too deeply");
    }
    ~Nesting() { --stream_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
  int32_t depth_ = 0;
};

}  // namespace nanocp::text::jinja
