// Parses the expressions of a template, with Jinja's precedence. One per template; one thread.
#pragma once

#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace nanocp::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // Throws TemplateError.
  ExpressionPtr parse();
  // Without `x if y else z`, as after the `in` of a for statement.
  ExpressionPtr parse_or();
  // One expression, or several with commas between them, which make a list.
  ExpressionPtr parse_tuple();
  // One or more filters applied to `operand`, without the first `|`.
  ExpressionPtr parse_filters(ExpressionPtr operand);

 private:
  using Kind = Expression::Kind;
  ExpressionPtr make(Kind kind, std::string name = {}) const;
  // Adds an operand, which may be null, and keeps track of the depth.
  void add(Expression& parent, ExpressionPtr operand) const;
  ExpressionPtr binary(Kind kind, std::string name, ExpressionPtr left, ExpressionPtr right) const;

  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_parentheses();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr operand);
  ExpressionPtr parse_subscript(ExpressionPtr operand);
  ExpressionPtr parse_one_filter(ExpressionPtr operand);
  ExpressionPtr parse_test(ExpressionPtr operand);
  bool starts_test_argument() const;
  void parse_arguments(Expression& call);

  TokenStream& tokens_;
};

}  // namespace nanocp::text::jinja
