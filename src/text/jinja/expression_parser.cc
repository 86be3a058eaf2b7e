#include "text/jinja/expression_parser.h"

#include <array>
#include <charconv>
#include <cstdlib>

#include "text/jinja/filters.h"

namespace nanocp::text::jinja {
namespace {

Value parse_integer(const Token& token) {
  int64_t value = 0;
  const char* end = token.text.data() + token.text.size();
  const auto [parsed, error] = std::from_chars(token.text.data(), end, value);
  if (error != std::errc() || parsed != end) {
    TokenStream::fail_at(token.line, "integer out of range");
  }
  return value;
}

}  // namespace

ExpressionPtr ExpressionParser::make(Kind kind, std::string name) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = tokens_.current().line;
  expression->name = std::move(name);
  return expression;
}

void ExpressionParser::add(Expression& parent, ExpressionPtr operand) const {
  if (operand != nullptr) {
    parent.depth = std::max(parent.depth, operand->depth + 1);
    if (parent.depth > kParseDepthMax) tokens_.fail_here("nested too deeply");
  }
  parent.operands.push_back(std::move(operand));
}

ExpressionPtr ExpressionParser::binary(Kind kind, std::string name, ExpressionPtr left,
                                       ExpressionPtr right) const {
  ExpressionPtr expression = make(kind, std::move(name));
  add(*expression, std::move(left));
  add(*expression, std::move(right));
  return expression;
}

ExpressionPtr ExpressionParser::parse() {
  const TokenStream::Nesting nesting(tokens_);
  ExpressionPtr value = parse_or();
  while (tokens_.take_name("if")) {
    ExpressionPtr conditional = make(Kind::kConditional);
    add(*conditional, parse_or());
    add(*conditional, std::move(value));
    add(*conditional, tokens_.take_name("else") ? parse() : nullptr);
    value = std::move(conditional);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_tuple() {
  ExpressionPtr first = parse();
  if (!tokens_.is_operator(",")) return first;
  ExpressionPtr list = make(Kind::kList);
  add(*list, std::move(first));
  while (tokens_.take_operator(",")) {
    const bool ends = tokens_.is(Token::Kind::kBlockEnd) || tokens_.is(Token::Kind::kPrintEnd) ||
                      tokens_.is_operator(")");
    if (ends) break;
    add(*list, parse());
  }
  return list;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  while (tokens_.take_name("or")) left = binary(Kind::kOr, {}, std::move(left), parse_and());
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  while (tokens_.take_name("and")) left = binary(Kind::kAnd, {}, std::move(left), parse_not());
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!tokens_.is_name("not")) return parse_compare();
  const TokenStream::Nesting nesting(tokens_);
  ExpressionPtr expression = make(Kind::kNot);
  tokens_.take();
  add(*expression, parse_not());
  return expression;
}

ExpressionPtr ExpressionParser::parse_compare() {
  ExpressionPtr first = parse_sum();
  ExpressionPtr compare;
  while (true) {
    std::string op;
    for (const std::string_view known : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (tokens_.is_operator(known)) op = known;
    }
    if (tokens_.is_name("in")) op = "in";
    const bool is_not_in = tokens_.is_name("not") && tokens_.next().kind == Token::Kind::kName &&
                           tokens_.next().text == "in";
    if (is_not_in) op = "not in";
    if (op.empty()) return compare == nullptr ? std::move(first) : std::move(compare);
    if (compare == nullptr) {
      compare = make(Kind::kCompare);
      add(*compare, std::move(first));
    }
    tokens_.take();
    if (is_not_in) tokens_.take();
    add(*compare, parse_sum());
    compare->comparisons.push_back(std::move(op));
  }
}

ExpressionPtr ExpressionParser::parse_sum() {
  ExpressionPtr left = parse_concat();
  while (tokens_.is_operator("+") || tokens_.is_operator("-")) {
    const std::string op = tokens_.take().text;
    left = binary(Kind::kBinary, op, std::move(left), parse_concat());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concat() {
  ExpressionPtr left = parse_product();
  while (tokens_.take_operator("~")) {
    left = binary(Kind::kBinary, "~", std::move(left), parse_product());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_product() {
  ExpressionPtr left = parse_power();
  while (tokens_.is_operator("*") || tokens_.is_operator("/") || tokens_.is_operator("//") ||
         tokens_.is_operator("%")) {
    const std::string op = tokens_.take().text;
    left = binary(Kind::kBinary, op, std::move(left), parse_power());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr left = parse_unary(true);
  while (tokens_.take_operator("**")) {
    left = binary(Kind::kBinary, "**", std::move(left), parse_unary(true));
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  const TokenStream::Nesting nesting(tokens_);
  ExpressionPtr value;
  if (tokens_.is_operator("-") || tokens_.is_operator("+")) {
    value = make(Kind::kUnary, tokens_.take().text);
    add(*value, parse_unary(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  while (with_filters) {
    if (tokens_.take_operator("|")) {
      value = parse_one_filter(std::move(value));
    } else if (tokens_.take_name("is")) {
      value = parse_test(std::move(value));
    } else if (tokens_.is_operator("(")) {
      value = parse_postfix(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_primary() {
  ExpressionPtr constant = make(Kind::kConstant);
  if (tokens_.is(Token::Kind::kInteger)) {
    constant->constant = parse_integer(tokens_.take());
    return constant;
  }
  if (tokens_.is(Token::Kind::kFloat)) {
    constant->constant = std::strtod(tokens_.take().text.c_str(), nullptr);
    return constant;
  }
  if (tokens_.is(Token::Kind::kString)) {
    std::string text = tokens_.take().text;
    while (tokens_.is(Token::Kind::kString)) text += tokens_.take().text;
    constant->constant = std::move(text);
    return constant;
  }
  if (tokens_.is(Token::Kind::kName)) {
    std::string name = tokens_.take().text;
    if (name == "true" || name == "True") {
      constant->constant = true;
    } else if (name == "false" || name == "False") {
      constant->constant = false;
    } else if (name != "none" && name != "None") {
      constant->kind = Kind::kName;
      constant->name = std::move(name);
    }
    return constant;
  }
  if (tokens_.is_operator("(")) return parse_parentheses();
  if (tokens_.is_operator("[")) return parse_list();
  if (tokens_.is_operator("{")) return parse_dict();
  tokens_.fail_here("expected an expression");
}

ExpressionPtr ExpressionParser::parse_parentheses() {
  tokens_.expect_operator("(");
  if (tokens_.take_operator(")")) return make(Kind::kList);
  ExpressionPtr value = parse_tuple();
  tokens_.expect_operator(")");
  return value;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr list = make(Kind::kList);
  tokens_.expect_operator("[");
  while (!tokens_.is_operator("]")) {
    add(*list, parse());
    if (!tokens_.take_operator(",")) break;
  }
  tokens_.expect_operator("]");
  return list;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr dict = make(Kind::kDict);
  tokens_.expect_operator("{");
  while (!tokens_.is_operator("}")) {
    add(*dict, parse());
    tokens_.expect_operator(":");
    add(*dict, parse());
    if (!tokens_.take_operator(",")) break;
  }
  tokens_.expect_operator("}");
  return dict;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr operand) {
  while (true) {
    if (tokens_.take_operator(".")) {
      ExpressionPtr attribute = make(Kind::kAttribute);
      if (tokens_.is(Token::Kind::kInteger)) {
        attribute->kind = Kind::kIndex;
        add(*attribute, std::move(operand));
        ExpressionPtr index = make(Kind::kConstant);
        index->constant = parse_integer(tokens_.take());
        add(*attribute, std::move(index));
      } else {
        attribute->name = tokens_.expect_name();
        add(*attribute, std::move(operand));
      }
      operand = std::move(attribute);
    } else if (tokens_.take_operator("[")) {
      operand = parse_subscript(std::move(operand));
    } else if (tokens_.is_operator("(")) {
      ExpressionPtr call = make(Kind::kCall);
      add(*call, std::move(operand));
      parse_arguments(*call);
      operand = std::move(call);
    } else {
      return operand;
    }
  }
}

// After the [.
ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr operand) {
  ExpressionPtr subscript = make(Kind::kIndex);
  add(*subscript, std::move(operand));
  std::array<ExpressionPtr, 3> parts;
  size_t num_colons = 0;
  while (!tokens_.is_operator("]")) {
    if (tokens_.take_operator(":")) {
      if (++num_colons > 2) tokens_.fail_here("a slice has at most two colons");
      continue;
    }
    if (parts[num_colons] != nullptr) tokens_.fail_here("expected ']'");
    parts[num_colons] = parse();
  }
  tokens_.expect_operator("]");
  if (num_colons == 0) {
    if (parts[0] == nullptr) tokens_.fail_here("expected an expression");
    add(*subscript, std::move(parts[0]));
    return subscript;
  }
  subscript->kind = Kind::kSlice;
  for (ExpressionPtr& part : parts) add(*subscript, std::move(part));
  return subscript;
}

void ExpressionParser::parse_arguments(Expression& call) {
  tokens_.expect_operator("(");
  while (!tokens_.is_operator(")")) {
    const bool is_named = tokens_.is(Token::Kind::kName) &&
                          tokens_.next().kind == Token::Kind::kOperator &&
                          tokens_.next().text == "=";
    if (is_named) {
      std::string name = tokens_.take().text;
      tokens_.take();
      ExpressionPtr value = parse();
      call.depth = std::max(call.depth, value->depth + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.named.empty()) tokens_.fail_here("a plain argument after a named one");
      if (tokens_.is_operator("*") || tokens_.is_operator("**")) {
        tokens_.fail_here("* and ** arguments are not supported");
      }
      add(call, parse());
    }
    if (!tokens_.take_operator(",")) break;
  }
  tokens_.expect_operator(")");
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr operand) {
  operand = parse_one_filter(std::move(operand));
  while (tokens_.take_operator("|")) operand = parse_one_filter(std::move(operand));
  return operand;
}

ExpressionPtr ExpressionParser::parse_one_filter(ExpressionPtr operand) {
  ExpressionPtr filter = make(Kind::kFilter, tokens_.expect_name());
  if (!has_filter(filter->name)) {
    tokens_.fail_here("the filter '" + filter->name + "' is not supported");
  }
  add(*filter, std::move(operand));
  if (tokens_.is_operator("(")) parse_arguments(*filter);
  return filter;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr operand) {
  const bool negated = tokens_.take_name("not");
  ExpressionPtr test = make(Kind::kTest, tokens_.expect_name());
  if (!has_test(test->name)) tokens_.fail_here("the test '" + test->name + "' is not supported");
  add(*test, std::move(operand));
  if (tokens_.is_operator("(")) {
    parse_arguments(*test);
  } else if (starts_test_argument()) {
    add(*test, parse_postfix(parse_primary()));
  }
  if (tokens_.is_name("is")) tokens_.fail_here("tests cannot be chained with is");
  if (!negated) return test;
  ExpressionPtr inverse = make(Kind::kNot);
  add(*inverse, std::move(test));
  return inverse;
}

bool ExpressionParser::starts_test_argument() const {
  using TokenKind = Token::Kind;
  if (tokens_.is(TokenKind::kName)) {
    for (const std::string_view word : {"else", "or", "and", "is", "if", "not", "in"}) {
      if (tokens_.is_name(word)) return false;
    }
    return true;
  }
  return tokens_.is(TokenKind::kString) || tokens_.is(TokenKind::kInteger) ||
         tokens_.is(TokenKind::kFloat) || tokens_.is_operator("[") || tokens_.is_operator("{");
}

}  // namespace nanocp::text::jinja
