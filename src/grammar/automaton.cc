#include "grammar/automaton.h"

#include <algorithm>
#include <string>

namespace nanocp::grammar {
namespace {

using Kind = Node::Kind;

// Which nodes can reach the end of their rule, over bytes or without reading any.
class EndReach {
 public:
  EndReach(const Automaton& automaton, bool over_bytes)
      : automaton_(automaton), over_bytes_(over_bytes), reaches_(automaton.nodes.size(), false) {
    link();
    for (NodeId id = 0; id < automaton_.nodes.size(); ++id) {
      if (automaton_.nodes[id].kind == Kind::kEnd) mark(id);
    }
    while (!marked_.empty()) {
      const NodeId id = marked_.back();
      marked_.pop_back();
      for (uint32_t i = first_[id]; i < first_[id + 1]; ++i) {
        if (!reaches_[users_[i]] && holds(users_[i])) mark(users_[i]);
      }
    }
  }

  const std::vector<bool>& reaches() const { return reaches_; }

 private:
  // Calls `use` for every node that decides about `id`.
  template <typename Use>
  void for_each_used(NodeId id, Use use) const {
    const Node& node = automaton_.nodes[id];
    switch (node.kind) {
      case Kind::kEnd:
        return;
      case Kind::kByte:
        if (over_bytes_) use(node.next);
        return;
      case Kind::kSplit:
        for (uint32_t i = 0; i < node.b; ++i) use(automaton_.targets[node.a + i]);
        return;
      case Kind::kCall:
        use(automaton_.rules[node.a].start);
        use(node.next);
        return;
      case Kind::kRepeat:
        use(automaton_.repeats[node.a].body);
        use(node.next);
        return;
    }
  }

  bool holds(NodeId id) const {
    const Node& node = automaton_.nodes[id];
    switch (node.kind) {
      case Kind::kEnd:
        return true;
      case Kind::kByte:
        return over_bytes_ && reaches_[node.next];
      case Kind::kSplit:
        return std::any_of(automaton_.targets.begin() + node.a,
                           automaton_.targets.begin() + node.a + node.b,
                           [&](NodeId target) { return reaches_[target]; });
      case Kind::kCall:
        return reaches_[node.next] && reaches_[automaton_.rules[node.a].start];
      case Kind::kRepeat: {
        const Repeat& repeat = automaton_.repeats[node.a];
        return reaches_[node.next] && (repeat.min == 0 || reaches_[repeat.body]);
      }
    }
    return false;
  }

  // users_[first_[id] .. first_[id + 1]) are the nodes that `id` decides about.
  void link() {
    const size_t num_nodes = automaton_.nodes.size();
    first_.assign(num_nodes + 1, 0);
    for (NodeId id = 0; id < num_nodes; ++id) {
      for_each_used(id, [&](NodeId used) { ++first_[used + 1]; });
    }
    for (size_t i = 0; i < num_nodes; ++i) first_[i + 1] += first_[i];
    users_.resize(first_[num_nodes]);
    std::vector<uint32_t> at(first_.begin(), first_.end() - 1);
    for (NodeId id = 0; id < num_nodes; ++id) {
      for_each_used(id, [&](NodeId used) { users_[at[used]++] = id; });
    }
  }

  void mark(NodeId id) {
    reaches_[id] = true;
    marked_.push_back(id);
  }

  const Automaton& automaton_;
  const bool over_bytes_;
  std::vector<bool> reaches_;
  std::vector<uint32_t> first_;
  std::vector<NodeId> users_;
  std::vector<NodeId> marked_;
};

// Looks for a rule that calls itself before it has read a byte.
class LeftRecursion {
 public:
  LeftRecursion(const Automaton& automaton, const std::vector<bool>& is_empty)
      : automaton_(automaton), is_empty_(is_empty) {
    for (const Rule& rule : automaton.rules) first_calls_.push_back(calls_from(rule.start));
  }

  // The first rule on a cycle, or the number of rules.
  RuleId find() {
    colour_.assign(first_calls_.size(), 0);
    for (RuleId rule = 0; rule < first_calls_.size(); ++rule) {
      if (colour_[rule] != 0) continue;
      const RuleId found = walk(rule);
      if (found < first_calls_.size()) return found;
    }
    return static_cast<RuleId>(first_calls_.size());
  }

 private:
  std::vector<RuleId> calls_from(NodeId start) {
    std::vector<RuleId> calls;
    std::vector<NodeId> open = {start};
    if (seen_.empty()) seen_.assign(automaton_.nodes.size(), 0);
    ++round_;
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      if (seen_[id] == round_ || !automaton_.is_live[id]) continue;
      seen_[id] = round_;
      expand(automaton_.nodes[id], open, calls);
    }
    return calls;
  }

  void expand(const Node& node, std::vector<NodeId>& open, std::vector<RuleId>& calls) const {
    const auto passes = [&](NodeId start) { return is_empty_[start]; };
    if (node.kind == Kind::kSplit) {
      open.insert(open.end(), automaton_.targets.begin() + node.a,
                  automaton_.targets.begin() + node.a + node.b);
    } else if (node.kind == Kind::kCall) {
      calls.push_back(node.a);
      if (passes(automaton_.rules[node.a].start)) open.push_back(node.next);
    } else if (node.kind == Kind::kRepeat) {
      const Repeat& repeat = automaton_.repeats[node.a];
      open.push_back(repeat.body);
      if (repeat.min == 0 || passes(repeat.body)) open.push_back(node.next);
    }
  }

  RuleId walk(RuleId root) {
    struct Visit {
      RuleId rule;
      size_t next;
    };
    std::vector<Visit> path = {{root, 0}};
    colour_[root] = 1;
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.next == first_calls_[visit.rule].size()) {
        colour_[visit.rule] = 2;
        path.pop_back();
        continue;
      }
      const RuleId called = first_calls_[visit.rule][visit.next++];
      if (colour_[called] == 1) return called;
      if (colour_[called] == 2) continue;
      colour_[called] = 1;
      path.push_back({called, 0});
    }
    return static_cast<RuleId>(first_calls_.size());
  }

  const Automaton& automaton_;
  const std::vector<bool>& is_empty_;
  std::vector<std::vector<RuleId>> first_calls_;  // by rule
  std::vector<uint32_t> seen_;                    // the round that saw a node last
  uint32_t round_ = 0;
  std::vector<uint8_t> colour_;  // 0 new, 1 on the path, 2 done
};

}  // namespace

Status check_automaton(Automaton& automaton) {
  automaton.is_live = EndReach(automaton, true).reaches();
  if (!automaton.is_live[automaton.start]) {
    return invalid_argument(
        "no finite output satisfies it: look for a required part that is impossible or that "
        "contains itself");
  }
  const EndReach empty(automaton, false);
  LeftRecursion recursion(automaton, empty.reaches());
  const RuleId rule = recursion.find();
  if (rule == automaton.rules.size()) return ok_status();
  return invalid_argument(automaton.rules[rule].name +
                          " begins with itself: put something in front of the recursion");
}

}  // namespace nanocp::grammar
