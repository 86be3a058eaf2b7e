// The syntax tree of a template. Built by parse(), never changed afterwards; any thread may read
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace nanocp::text::jinja {

// The name of what a block printed, inside the filters that follow it. No template can write it.
inline constexpr const char* kBodyName = "(body)";

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kConstant,     // constant
    kName,         // name
    kList,         // operands
    kDict,         // operands: key, value, key, value, ...
    kAttribute,    // operands[0].name
    kIndex,        // operands[0][operands[1]]
    kSlice,        // operands[0][operands[1]:operands[2]:operands[3]], each of 1 to 3 may be null
    kCall,         // operands[0](operands[1..], named)
    kFilter,       // operands[0] | name(operands[1..], named)
    kTest,         // operands[0] is name(operands[1..])
    kNot,          // operands[0]
    kUnary,        // name, + or -, before operands[0]
    kBinary,       // operands[0] name operands[1], name one of + - * / // % ** ~
    kCompare,      // operands[0] comparisons[0] operands[1] comparisons[1] operands[2] ...
    kAnd,          // operands[0], operands[1]
    kOr,           // operands[0], operands[1]
    kConditional,  // operands[1] if operands[0] else operands[2], which may be null
  };
  Kind kind = Kind::kConstant;
  int32_t line = 0;
  int32_t depth = 1;  // of expressions inside each other
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> comparisons;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum class Kind {
    kText,   // name is what is printed
    kPrint,  // expressions[0]
    kIf,     // expressions[i] guards bodies[i]; one more body is the else
    kFor,    // names in expressions[0] if expressions[1], which may be null; bodies: loop, else
    kSet,    // names = expressions[0]
    kSetAttribute,  // names[0].names[1] = expressions[0]
    kSetBlock,      // names[0] = what bodies[0] prints
    kMacro,         // name(names), the last defaults.size() of names have the defaults; bodies[0]
    kFilter,        // bodies[0] printed through expressions[0], a filter of the name `body`
    kScope,         // bodies[0]: {% generation %}
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int32_t line = 0;
  std::string name;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> expressions;
  std::vector<ExpressionPtr> defaults;
  std::vector<Block> bodies;
};

}  // namespace nanocp::text::jinja
