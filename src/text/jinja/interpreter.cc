#include "text/jinja/interpreter.h"

#include <algorithm>
#include <array>

#include "text/jinja/filters.h"
#include "text/jinja/methods.h"
#include "text/jinja/operations.h"

namespace nanocp::text::jinja {
namespace {

using Kind = Expression::Kind;

constexpr std::array<std::string_view, 5> kFunctions = {"range", "namespace", "dict",
                                                        "raise_exception", "strftime_now"};

std::optional<int64_t> slice_bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (!value.is_integer()) fail("slice indices must be integers or None");
  return value.integer();
}

bool matches(std::string_view op, const Value& left, const Value& right, Meter& meter) {
  if (op == "==") return equals(left, right, meter);
  if (op == "!=") return !equals(left, right, meter);
  if (op == "in") return contains(right, left, meter);
  if (op == "not in") return !contains(right, left, meter);
  const int order = compare(left, right, meter);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

}  // namespace

// One level of nested evaluation, on this thread's stack.
class Interpreter::Level {
 public:
  explicit Level(Interpreter& interpreter) : interpreter_(interpreter) {
    const int32_t depth_max = interpreter.meter_.limits().depth_max;
    if (++interpreter.depth_ > depth_max) Meter::stop("levels of nesting", depth_max);
    interpreter.meter_.step();
  }
  ~Level() { --interpreter_.depth_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Interpreter& interpreter_;
};

Interpreter::Interpreter(const Dict& variables, const StrftimeNow& strftime_now, Meter& meter)
    : variables_(variables), strftime_now_(strftime_now), meter_(meter) {}

Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

std::string Interpreter::run(const Block& root) {
  std::string out;
  out_ = &out;
  scopes_.assign(1, {});
  run_block(root);
  return out;
}

Interpreter::Flow Interpreter::run_block(const Block& block) {
  for (const auto& statement : block) {
    const Flow flow = run_statement(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  const Level level(*this);
  using StatementKind = Statement::Kind;
  switch (statement.kind) {
    case StatementKind::kText:
      print(statement.name);
      break;
    case StatementKind::kPrint:
      print(to_text(evaluate(*statement.expressions[0]), meter_));
      break;
    case StatementKind::kIf:
      return run_if(statement);
    case StatementKind::kFor:
      return run_for(statement);
    case StatementKind::kSet:
      bind_targets(statement, evaluate(*statement.expressions[0]));
      break;
    case StatementKind::kSetAttribute:
      set_attribute(statement);
      break;
    case StatementKind::kSetBlock:
      assign(statement.names[0], filtered_body(statement));
      break;
    case StatementKind::kMacro:
      assign(statement.name, Macro{&statement});
      break;
    case StatementKind::kFilter:
      print(to_text(filtered_body(statement), meter_));
      break;
    case StatementKind::kScope:
      print(captured(statement.bodies[0]));
      break;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    if (evaluate(*statement.expressions[i]).truthy()) return run_block(statement.bodies[i]);
  }
  const bool has_else = statement.bodies.size() > statement.expressions.size();
  return has_else ? run_block(statement.bodies.back()) : Flow::kNext;
}

std::shared_ptr<const List> Interpreter::loop_items(const Statement& statement) {
  auto items = iterate(evaluate(*statement.expressions[0]), meter_);
  const Expression* condition = statement.expressions[1].get();
  if (condition == nullptr) return items;
  List kept;
  scopes_.emplace_back();
  for (const Value& item : *items) {
    scopes_.back().clear();
    bind_targets(statement, item);
    if (evaluate(*condition).truthy()) kept.push_back(item);
  }
  scopes_.pop_back();
  return meter_.make(std::move(kept)).shared_list();
}

Interpreter::Flow Interpreter::run_for(const Statement& statement) {
  const auto loop = std::make_shared<LoopState>();
  meter_.allocate(sizeof(LoopState));
  loop->items = loop_items(statement);
  if (loop->items->empty()) {
    return statement.bodies.size() > 1 ? run_block(statement.bodies[1]) : Flow::kNext;
  }
  const Value loop_value(loop);
  if (loop_value.depth() > meter_.limits().value_depth_max) {
    Meter::stop("loops inside each other", meter_.limits().value_depth_max);
  }
  scopes_.emplace_back();
  for (; loop->index < loop->items->size(); ++loop->index) {
    meter_.step();
    scopes_.back().clear();
    assign("loop", loop_value);
    bind_targets(statement, (*loop->items)[loop->index]);
    if (run_block(statement.bodies[0]) == Flow::kBreak) break;
  }
  scopes_.pop_back();
  return Flow::kNext;
}

void Interpreter::bind_targets(const Statement& statement, const Value& value) {
  if (statement.names.size() == 1) return assign(statement.names[0], value);
  const auto parts = iterate(value, meter_);
  if (parts->size() != statement.names.size()) {
    fail("expected " + std::to_string(statement.names.size()) + " values to unpack, got " +
         std::to_string(parts->size()));
  }
  for (size_t i = 0; i < parts->size(); ++i) assign(statement.names[i], (*parts)[i]);
}

void Interpreter::set_attribute(const Statement& statement) {
  Value value = evaluate(*statement.expressions[0]);
  const Value target = look_up(statement.names[0]);
  Namespace* space = target.as_namespace();
  if (space == nullptr) fail("cannot assign attribute on non-namespace object");
  for (auto& [name, held] : space->attributes) {
    if (name == statement.names[1]) {
      held = std::move(value);
      return;
    }
  }
  meter_.allocate(sizeof(Dict::value_type) + statement.names[1].size());
  space->attributes.emplace_back(statement.names[1], std::move(value));
}

void Interpreter::print(std::string_view text) {
  meter_.touch(text.size());
  const int64_t limit = meter_.limits().output_bytes_max;
  if (static_cast<int64_t>(out_->size() + text.size()) > limit) {
    Meter::stop("bytes of output", limit);
  }
  out_->append(text);
}

std::string Interpreter::captured(const Block& block) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  scopes_.emplace_back();
  run_block(block);
  scopes_.pop_back();
  out_ = outer;
  meter_.allocate(text.size());
  return text;
}

Value Interpreter::filtered_body(const Statement& statement) {
  Value body = meter_.make(captured(statement.bodies[0]));
  if (statement.expressions.empty()) return body;
  scopes_.emplace_back();
  assign(kBodyName, std::move(body));
  Value value = evaluate(*statement.expressions[0]);
  scopes_.pop_back();
  return value;
}

Value Interpreter::look_up(std::string_view name) const {
  const auto find_in = [&](const Scope& scope) -> const Value* {
    for (const auto& [key, value] : scope) {
      if (key == name) return &value;
    }
    return nullptr;
  };
  for (size_t i = scopes_.size(); i > first_visible_; --i) {
    if (const Value* found = find_in(scopes_[i - 1])) return *found;
  }
  if (const Value* found = find_in(scopes_[0])) return *found;
  for (const auto& [key, value] : variables_) {
    if (key == name) return value;
  }
  if (std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end()) {
    return GlobalFunction{std::string(name)};
  }
  meter_.allocate(sizeof(Undefined) + name.size());
  std::string message("'");
  return Value::undefined(message.append(name).append("' is undefined"));
}

void Interpreter::assign(std::string_view name, Value value) {
  for (auto& [key, held] : scopes_.back()) {
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  scopes_.back().emplace_back(name, std::move(value));
}

Value Interpreter::evaluate(const Expression& expression) {
  const Level level(*this);
  const auto& operands = expression.operands;
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return look_up(expression.name);
    case Kind::kList: {
      List items;
      for (const auto& operand : operands) items.push_back(evaluate(*operand));
      return meter_.make(std::move(items));
    }
    case Kind::kDict:
      return evaluate_dict(expression);
    case Kind::kAttribute:
      return attribute(evaluate(*operands[0]), expression.name, meter_);
    case Kind::kIndex: {
      const Value object = evaluate(*operands[0]);
      return item(object, evaluate(*operands[1]), meter_);
    }
    case Kind::kSlice:
      return evaluate_slice(expression);
    case Kind::kCall:
      return evaluate_call(expression);
    case Kind::kFilter:
    case Kind::kTest: {
      const Value value = evaluate(*operands[0]);
      const Arguments arguments = evaluate_arguments(expression);
      if (expression.kind == Kind::kTest) {
        return apply_test(expression.name, value, arguments, meter_);
      }
      return apply_filter(expression.name, value, arguments, meter_);
    }
    case Kind::kUnary: {
      const Value value = evaluate(*operands[0]);
      return expression.name == "-" ? negate(value) : value;
    }
    case Kind::kBinary: {
      const Value left = evaluate(*operands[0]);
      return binary(expression.name, left, evaluate(*operands[1]), meter_);
    }
    case Kind::kCompare:
      return evaluate_compare(expression);
    default:
      return evaluate_branch(expression);
  }
}

// The kinds that do not evaluate all their operands.
Value Interpreter::evaluate_branch(const Expression& expression) {
  const auto& operands = expression.operands;
  Value first = evaluate(*operands[0]);
  const bool truth = first.truthy();
  if (expression.kind == Kind::kNot) return !truth;
  if (expression.kind == Kind::kAnd) return truth ? evaluate(*operands[1]) : first;
  if (expression.kind == Kind::kOr) return truth ? first : evaluate(*operands[1]);
  if (truth) return evaluate(*operands[1]);
  if (operands[2] != nullptr) return evaluate(*operands[2]);
  return Value::undefined("the inline if-expression evaluated to false and has no else");
}

bool Interpreter::evaluate_compare(const Expression& expression) {
  Value left = evaluate(*expression.operands[0]);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.operands[i + 1]);
    if (!matches(expression.comparisons[i], left, right, meter_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_dict(const Expression& expression) {
  Dict items;
  for (size_t i = 0; i < expression.operands.size(); i += 2) {
    const Value key = evaluate(*expression.operands[i]);
    if (!key.is_string()) fail("the keys of a dict must be strings here");
    Value value = evaluate(*expression.operands[i + 1]);
    const auto same = std::find_if(items.begin(), items.end(),
                                   [&](const auto& held) { return held.first == key.string(); });
    if (same != items.end()) {
      same->second = std::move(value);
    } else {
      items.emplace_back(key.string(), std::move(value));
    }
  }
  return meter_.make(std::move(items));
}

Value Interpreter::evaluate_slice(const Expression& expression) {
  const Value object = evaluate(*expression.operands[0]);
  std::array<std::optional<int64_t>, 3> parts;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Expression* part = expression.operands[i + 1].get();
    if (part != nullptr) parts[i] = slice_bound(evaluate(*part));
  }
  return slice(object, {.begin = parts[0], .end = parts[1], .step = parts[2].value_or(1)}, meter_);
}

Arguments Interpreter::evaluate_arguments(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.operands.size(); ++i) {
    arguments.positional.push_back(evaluate(*expression.operands[i]));
  }
  for (const auto& [name, value] : expression.named) {
    arguments.named.emplace_back(name, evaluate(*value));
  }
  return arguments;
}

Value Interpreter::evaluate_call(const Expression& expression) {
  const Value callee = evaluate(*expression.operands[0]);
  if (callee.is_undefined()) fail(callee.undefined_message());
  const Arguments arguments = evaluate_arguments(expression);
  if (const Macro* macro = callee.as_macro()) return call_macro(*macro->definition, arguments);
  if (const BoundMethod* method = callee.as_method()) {
    return call_method(*method->object, method->name, arguments, meter_);
  }
  if (const GlobalFunction* function = callee.as_function()) {
    return call_function(function->name, arguments);
  }
  fail(std::string(callee.type_name()) + " object is not callable");
}

// Sees its arguments, its own variables and those of the outermost level.
Value Interpreter::call_macro(const Statement& definition, const Arguments& arguments) {
  const size_t num_parameters = definition.names.size();
  if (arguments.positional.size() > num_parameters) {
    fail("macro '" + definition.name + "' takes not more than " + std::to_string(num_parameters) +
         " argument(s)");
  }
  for (const auto& [name, value] : arguments.named) {
    if (std::find(definition.names.begin(), definition.names.end(), name) ==
        definition.names.end()) {
      fail("macro '" + definition.name + "' takes no keyword argument '" + name + "'");
    }
  }
  scopes_.emplace_back();
  const size_t outer_visible = std::exchange(first_visible_, scopes_.size() - 1);
  const size_t first_default = num_parameters - definition.defaults.size();
  for (size_t i = 0; i < num_parameters; ++i) {
    const std::string& name = definition.names[i];
    if (const Value* given = arguments.find(i, name)) {
      assign(name, *given);
    } else if (i >= first_default) {
      assign(name, evaluate(*definition.defaults[i - first_default]));
    } else {
      assign(name, Value::undefined("parameter '" + name + "' was not provided"));
    }
  }
  std::string text = captured(definition.bodies[0]);
  first_visible_ = outer_visible;
  scopes_.pop_back();
  return meter_.make(std::move(text));
}

Value Interpreter::call_function(const std::string& name, const Arguments& arguments) {
  if (name == "range") return make_range(arguments);
  if (name == "namespace") return make_namespace(arguments);
  if (name == "dict") return meter_.make(Dict(arguments.named.begin(), arguments.named.end()));
  if (name == "strftime_now") {
    const std::string& format = arguments.string(0, "format");
    if (format.size() > 256) fail("strftime_now: the format is longer than 256 bytes");
    return meter_.make(strftime_now_(format));
  }
  throw TemplateError(TemplateError::Kind::kRaised,
                      to_text(arguments.required(0, "message"), meter_));
}

Value Interpreter::make_range(const Arguments& arguments) {
  const size_t count = arguments.positional.size();
  if (count == 0 || count > 3) fail("range takes 1 to 3 arguments");
  const int64_t begin = count > 1 ? arguments.integer(0, "start", 0) : 0;
  const int64_t end = arguments.integer(count > 1 ? 1 : 0, "stop", 0);
  const int64_t step = arguments.integer(2, "step", 1);
  if (step == 0) fail("range() arg 3 must not be zero");
  constexpr int64_t kRangeMax = 100'000;  // as Jinja's sandbox
  const double size =
      (static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step);
  if (size > static_cast<double>(kRangeMax)) Meter::stop("elements of a range", kRangeMax);
  List items;
  for (int64_t i = 0; static_cast<double>(i) < size; ++i) items.emplace_back(begin + i * step);
  return meter_.make(std::move(items));
}

Value Interpreter::make_namespace(const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  meter_.allocate(sizeof(Namespace) + arguments.named.size() * sizeof(Dict::value_type));
  for (const Value& value : arguments.positional) {
    if (!value.is_dict()) fail("namespace takes a dict and named arguments");
    meter_.allocate(value.dict().size() * sizeof(Dict::value_type));
    space->attributes.insert(space->attributes.end(), value.dict().begin(), value.dict().end());
  }
  space->attributes.insert(space->attributes.end(), arguments.named.begin(), arguments.named.end());
  namespaces_.push_back(space);
  return {std::move(space)};
}

}  // namespace nanocp::text::jinja
