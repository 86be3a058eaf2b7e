// The pieces of JSON's grammar as nodes of an automaton: strings, numbers, white space, any value.
// What is generated is a part of JSON that every parser takes: no lone surrogates, numbers that a
// double holds, and white space where writers of JSON put it, and no more of it.
// One thread; the builder outlives this.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/builder.h"
#include "grammar/decimal.h"
#include "grammar/regex.h"

namespace nanocp::grammar {

class JsonText {
 public:
  explicit JsonText(Builder& builder) : builder_(builder) {}

  // Behind an opening bracket or a comma, and in front of a closing bracket: nothing, a space, or a
  // line break with its indent.
  NodeId space(NodeId next);
  // A string of so many characters.
  NodeId string(Builder::Count length, NodeId next);
  // A string whose characters match.
  NodeId matching_string(const Regex& regex, NodeId next);
  // A string that is none of `names`, for keys.
  NodeId key_besides(std::vector<std::string> names, NodeId next);
  NodeId number(const NumberRange& range, NodeId next);
  NodeId any_value(NodeId next);
  NodeId any_object(NodeId next);
  NodeId any_array(NodeId next);
  // The colon between a key and `value`, with a space or none.
  NodeId colon(NodeId value);

  // A rule that is defined when it is first called; `key` names its meaning.
  NodeId shared(const std::string& key, bool nests, const std::function<NodeId()>& define,
                NodeId next);

 private:
  NodeId character(const CharSet& chars, NodeId next);
  NodeId any_character(NodeId next);
  NodeId unicode_escape(NodeId next);
  NodeId any_scalar(NodeId next);
  NodeId bracketed(std::string_view open, std::string_view close, const Builder::Body& item);

  Builder& builder_;
  std::map<std::string, RuleId> rules_;
};

}  // namespace nanocp::grammar
