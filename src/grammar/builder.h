// Makes an Automaton from its end to its start: each function takes the node that comes next and
// returns the one in front of it. One thread. Nodes beyond the limit are not made; full() tells.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/char_set.h"

namespace nanocp::grammar {

class Builder {
 public:
  using Body = std::function<NodeId(NodeId next)>;
  struct Count {
    uint32_t min;
    uint32_t max;  // kUnbounded: no limit
  };

  Builder();

  NodeId end() const { return 0; }    // of a rule
  NodeId never() const { return 1; }  // matches nothing
  NodeId byte(const ByteSet& set, NodeId next);
  NodeId literal(std::string_view text, NodeId next);
  NodeId split(const std::vector<NodeId>& targets);
  // One of `texts`, as a tree of their common beginnings.
  NodeId one_of(std::vector<std::string> texts, NodeId next);
  // One character in UTF-8.
  NodeId character(const CharSet& set, NodeId next);
  NodeId repeat(Count count, const Body& body, NodeId next);

  RuleId add_rule(std::string name, bool nests);  // to be defined later
  void define_rule(RuleId rule, NodeId start) { automaton_.rules[rule].start = start; }
  NodeId call(RuleId rule, NodeId next);

  bool full() const { return is_full_; }
  // Checks what has been made.
  Result<Automaton> finish(NodeId start);

 private:
  using Encoded = std::vector<ByteSet>;  // a set for each byte of a character

  NodeId add(const Node& node);
  NodeId star(const Body& body, NodeId next);
  uint32_t add_byte_set(const ByteSet& set);
  NodeId tree(const std::vector<std::string>& texts, size_t begin, size_t end, size_t depth,
              NodeId next);

  Automaton automaton_;
  bool is_full_ = false;
  std::map<ByteSet, uint32_t> byte_set_ids_;
  std::map<std::pair<uint32_t, NodeId>, NodeId> byte_nodes_;  // by set and next
};

}  // namespace nanocp::grammar
