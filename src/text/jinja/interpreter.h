// Runs a syntax tree once. Templates reach nothing but the variables they are given, and every
// step, byte and level of nesting is counted. One per rendering; one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/arguments.h"
#include "text/jinja/ast.h"
#include "text/jinja/meter.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

class Interpreter {
 public:
  // strftime_now: the current date and time in a format of strftime.
  using StrftimeNow = std::function<std::string(const std::string& format)>;

  // Requires: all arguments outlive this.
  Interpreter(const Dict& variables, const StrftimeNow& strftime_now, Meter& meter);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // What `root` prints. Throws TemplateError.
  std::string run(const Block& root);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::vector<std::pair<std::string_view, Value>>;
  class Level;

  Flow run_block(const Block& block);
  Flow run_statement(const Statement& statement);
  Flow run_if(const Statement& statement);
  Flow run_for(const Statement& statement);
  std::shared_ptr<const List> loop_items(const Statement& statement);
  void bind_targets(const Statement& statement, const Value& value);
  void set_attribute(const Statement& statement);
  void print(std::string_view text);
  // What `block` prints in a scope of its own.
  std::string captured(const Block& block);
  Value filtered_body(const Statement& statement);

  Value evaluate(const Expression& expression);
  Value evaluate_branch(const Expression& expression);
  Value evaluate_dict(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  bool evaluate_compare(const Expression& expression);
  Arguments evaluate_arguments(const Expression& expression);
  Value call_macro(const Statement& definition, const Arguments& arguments);
  Value call_function(const std::string& name, const Arguments& arguments);
  Value make_range(const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);

  Value look_up(std::string_view name) const;
  void assign(std::string_view name, Value value);

  const Dict& variables_;
  const StrftimeNow& strftime_now_;
  Meter& meter_;
  std::vector<Scope> scopes_;
  size_t first_visible_ = 0;  // scopes from here on, and the outermost, are seen by the macro
  int32_t depth_ = 0;
  std::string* out_ = nullptr;
  // Namespaces can hold each other, so that counting references would never free them.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace nanocp::text::jinja
