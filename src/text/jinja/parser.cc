#include "text/jinja/parser.h"

#include <initializer_list>
#include <utility>

#include "text/jinja/expression_parser.h"
#include "text/jinja/lexer.h"
#include "text/jinja/token_stream.h"

namespace nanocp::text::jinja {
namespace {

using Kind = Statement::Kind;
using StatementPtr = std::unique_ptr<Statement>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Block run() {
    Block block = parse_block({});
    if (!tokens_.is(Token::Kind::kEnd)) {
      tokens_.take();
      tokens_.fail_here("unexpected '" + tokens_.current().text + "'");
    }
    return block;
  }

 private:
  StatementPtr make(Kind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = tokens_.current().line;
    return statement;
  }

  bool at_tag(std::initializer_list<std::string_view> names) const {
    if (!tokens_.is(Token::Kind::kBlockBegin) || tokens_.next().kind != Token::Kind::kName) {
      return false;
    }
    for (const std::string_view name : names) {
      if (tokens_.next().text == name) return true;
    }
    return false;
  }

  // The statements up to one of the tags `ends`, which stays.
  Block parse_block(std::initializer_list<std::string_view> ends) {
    const TokenStream::Nesting nesting(tokens_);
    Block block;
    while (!tokens_.is(Token::Kind::kEnd) && !at_tag(ends)) {
      if (tokens_.is(Token::Kind::kText)) {
        block.push_back(make(Kind::kText));
        block.back()->name = tokens_.take().text;
      } else if (tokens_.is(Token::Kind::kPrintBegin)) {
        tokens_.take();
        block.push_back(make(Kind::kPrint));
        block.back()->expressions.push_back(expressions_.parse_tuple());
        expect(Token::Kind::kPrintEnd, "}}");
      } else {
        block.push_back(parse_tag());
      }
    }
    return block;
  }

  void expect(Token::Kind kind, const std::string& what) {
    if (!tokens_.is(kind)) tokens_.fail_here("expected '" + what + "'");
    tokens_.take();
  }
  void expect_block_end() { expect(Token::Kind::kBlockEnd, "%}"); }

  // {% name %}, the end of `statement`.
  void expect_tag(const Statement& statement, std::string_view name) {
    if (!at_tag({name})) {
      TokenStream::fail_at(statement.line, "has no " + std::string(name));
    }
    tokens_.take();
    tokens_.take();
  }

  StatementPtr parse_tag() {
    tokens_.take();
    const std::string name = tokens_.expect_name();
    if (name == "if") return parse_if();
    if (name == "for") return parse_for();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro();
    if (name == "filter") return parse_filter();
    if (name == "generation") return parse_generation();
    if (name == "break" || name == "continue") {
      StatementPtr statement = make(name == "break" ? Kind::kBreak : Kind::kContinue);
      if (loop_depth_ == 0) tokens_.fail_here(name + " outside of a for");
      expect_block_end();
      return statement;
    }
    tokens_.fail_here("the tag '" + name + "' is not supported");
  }

  StatementPtr parse_if() {
    StatementPtr statement = make(Kind::kIf);
    statement->expressions.push_back(expressions_.parse_tuple());
    expect_block_end();
    statement->bodies.push_back(parse_block({"elif", "else", "endif"}));
    while (at_tag({"elif"})) {
      tokens_.take();
      tokens_.take();
      statement->expressions.push_back(expressions_.parse_tuple());
      expect_block_end();
      statement->bodies.push_back(parse_block({"elif", "else", "endif"}));
    }
    parse_else(*statement, "endif");
    return statement;
  }

  // An optional {% else %} and the end of a statement.
  void parse_else(Statement& statement, std::string_view end) {
    if (at_tag({"else"})) {
      tokens_.take();
      tokens_.take();
      expect_block_end();
      statement.bodies.push_back(parse_block({end}));
    }
    expect_tag(statement, end);
    expect_block_end();
  }

  std::vector<std::string> parse_targets() {
    const bool in_parentheses = tokens_.take_operator("(");
    std::vector<std::string> names = {tokens_.expect_name()};
    while (tokens_.take_operator(",")) names.push_back(tokens_.expect_name());
    if (in_parentheses) tokens_.expect_operator(")");
    return names;
  }

  StatementPtr parse_for() {
    StatementPtr statement = make(Kind::kFor);
    statement->names = parse_targets();
    if (!tokens_.take_name("in")) tokens_.fail_here("expected 'in'");
    statement->expressions.push_back(parse_iterable());
    statement->expressions.push_back(tokens_.take_name("if") ? expressions_.parse() : nullptr);
    if (tokens_.is_name("recursive")) tokens_.fail_here("recursive loops are not supported");
    expect_block_end();
    ++loop_depth_;
    statement->bodies.push_back(parse_block({"else", "endfor"}));
    --loop_depth_;
    parse_else(*statement, "endfor");
    return statement;
  }

  ExpressionPtr parse_iterable() {
    ExpressionPtr first = expressions_.parse_or();
    if (!tokens_.is_operator(",")) return first;
    tokens_.fail_here("put the elements of the loop into [ ]");
  }

  StatementPtr parse_set() {
    StatementPtr statement = make(Kind::kSet);
    statement->names = parse_targets();
    if (tokens_.take_operator(".")) {
      if (statement->names.size() > 1) tokens_.fail_here("expected '='");
      statement->kind = Kind::kSetAttribute;
      statement->names.push_back(tokens_.expect_name());
    }
    if (tokens_.take_operator("=")) {
      statement->expressions.push_back(expressions_.parse_tuple());
      expect_block_end();
      return statement;
    }
    if (statement->kind == Kind::kSetAttribute || statement->names.size() > 1) {
      tokens_.fail_here("expected '='");
    }
    statement->kind = Kind::kSetBlock;
    if (tokens_.take_operator("|")) statement->expressions.push_back(filters_of_body());
    parse_body(*statement, "endset");
    return statement;
  }

  // Filters of what a block prints: their operand is a name that no template can write.
  ExpressionPtr filters_of_body() {
    auto body = std::make_unique<Expression>();
    body->kind = Expression::Kind::kName;
    body->name = kBodyName;
    return expressions_.parse_filters(std::move(body));
  }

  void parse_body(Statement& statement, std::string_view end) {
    expect_block_end();
    statement.bodies.push_back(parse_block({end}));
    expect_tag(statement, end);
    if (tokens_.is(Token::Kind::kName)) tokens_.take();  // {% endmacro name %}
    expect_block_end();
  }

  StatementPtr parse_macro() {
    StatementPtr statement = make(Kind::kMacro);
    statement->name = tokens_.expect_name();
    tokens_.expect_operator("(");
    while (!tokens_.is_operator(")")) {
      statement->names.push_back(tokens_.expect_name());
      if (tokens_.take_operator("=")) {
        statement->defaults.push_back(expressions_.parse());
      } else if (!statement->defaults.empty()) {
        tokens_.fail_here("a parameter without a default after one with");
      }
      if (!tokens_.take_operator(",")) break;
    }
    tokens_.expect_operator(")");
    const int outer_depth = std::exchange(loop_depth_, 0);
    parse_body(*statement, "endmacro");
    loop_depth_ = outer_depth;
    return statement;
  }

  StatementPtr parse_filter() {
    StatementPtr statement = make(Kind::kFilter);
    statement->expressions.push_back(filters_of_body());
    parse_body(*statement, "endfilter");
    return statement;
  }

  StatementPtr parse_generation() {
    StatementPtr statement = make(Kind::kScope);
    parse_body(*statement, "endgeneration");
    return statement;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int loop_depth_ = 0;
};

}  // namespace

Block parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace nanocp::text::jinja
