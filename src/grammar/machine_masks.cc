// Masks of allowed tokens, see machine.h.
#include <algorithm>

#include "base/check.h"
#include "grammar/limits.h"
#include "grammar/machine.h"

namespace nanocp::grammar {
namespace {

using Kind = Node::Kind;

constexpr size_t kExitsMax = 20'000;  // more cost as much as a walk from the top
constexpr size_t kPreparedMax = 16;   // rules

void allow(TokenMask& mask, TokenId token) {
  mask[static_cast<size_t>(token) / 32] |= 1U << (static_cast<uint32_t>(token) % 32);
}

}  // namespace

// From `state` at the parent of node `begin` over the nodes [begin, end), which are whole subtrees.
void Machine::walk(StateId state, size_t begin, size_t end, Walk& walk) {
  const Vocabulary& vocabulary = *vocabulary_;
  const uint32_t top = vocabulary.depth(begin);
  path_.resize(vocabulary.longest_bytes() + 2);  // by depth above `top`
  path_[0] = state;
  for (size_t node = begin; node < end;) {
    const uint32_t level = vocabulary.depth(node) - top;
    StateId next = transitions_[transition_of(path_[level], vocabulary.byte(node))];
    if (next == kUnknown) {
      next = find_step(path_[level], vocabulary.byte(node));
      walk.failed = walk.failed || next == kTooMany || work_ > kMaskWorkMax ||
                    states_.size() - states_before_ > kMaskStatesMax;
      if (walk.failed) return;
    }
    if (next < 0) {
      node = vocabulary.subtree_end(node);
      continue;
    }
    path_[level + 1] = next;
    for (const TokenId token : vocabulary.tokens(node)) allow(*walk.mask, token);
    const State& reached = states_[index(next)];
    walk.max_depth = std::max(walk.max_depth, reached.max_depth);
    const bool is_exit = reached.accepts && vocabulary.subtree_end(node) > node + 1;
    if (is_exit && walk.exits != nullptr) {
      walk.exits->push_back(static_cast<uint32_t>(node));
      if (walk.exits->size() > kExitsMax) walk.exits = nullptr;
    }
    ++node;
  }
}

bool Machine::walk_whole(StateId state, TokenMask& mask) {
  Walk whole = {.mask = &mask};
  if (vocabulary_->num_nodes() > 1) walk(state, 1, vocabulary_->num_nodes(), whole);
  return !whole.failed;
}

// The calls that all places of the state share and that a repetition is not on top of.
Machine::StackId Machine::base_of(StateId state) const {
  const State& of = states_[index(state)];
  StackId base = configs_[of.first].stack;
  for (uint32_t i = of.first + 1; i < of.first + of.count; ++i) {
    StackId other = configs_[i].stack;
    while (base != other) {
      if (depth(base) >= depth(other)) {
        base = frames_[base].parent;
      } else {
        other = frames_[other].parent;
      }
    }
  }
  while (base != 0 && automaton_.nodes[frames_[base].node].kind == Kind::kRepeat) {
    base = frames_[base].parent;
  }
  return base;
}

// A count that no token can tell from the frame's: each repetition takes at least a byte.
uint32_t Machine::representative(const Frame& frame) const {
  const Node& node = automaton_.nodes[frame.node];
  if (node.kind != Kind::kRepeat) return frame.count;
  const Repeat& repeat = automaton_.repeats[node.a];
  const auto longest = static_cast<uint32_t>(vocabulary_->longest_bytes()) + 1;
  if (repeat.max == kUnbounded && frame.count >= repeat.min) return frame.count;
  if (repeat.max != kUnbounded && repeat.max - frame.count <= longest) return frame.count;
  if (frame.count >= repeat.min) return std::max(repeat.min, repeat.max - longest - 1);
  return repeat.min - frame.count > longest ? 0 : frame.count;
}

// `stack` without the frames of `base`, which lie at its bottom.
Machine::StackId Machine::moved(StackId stack, StackId base) {
  std::vector<Frame> above;
  for (; stack != base; stack = frames_[stack].parent) above.push_back(frames_[stack]);
  StackId result = 0;
  for (size_t i = above.size(); i > 0; --i) {
    result = push(result, above[i - 1].node, representative(above[i - 1]));
  }
  return result;
}

StateId Machine::without_base(StateId state, StackId base) {
  const State of = states_[index(state)];
  std::vector<Config> configs;
  for (uint32_t i = of.first; i < of.first + of.count; ++i) {
    const Config config = configs_[i];
    configs.push_back({config.node, moved(config.stack, base)});
  }
  std::sort(configs.begin(), configs.end());
  configs.erase(std::unique(configs.begin(), configs.end()), configs.end());
  return intern(configs);
}

const Machine::Shape* Machine::shape_of(StateId state) {
  const auto [found, is_first] = shapes_.try_emplace(state);
  Shape& shape = found->second;
  if (!is_first) return &shape;
  shape.mask.assign(vocabulary_->num_words(), 0);
  Walk whole = {.mask = &shape.mask, .exits = &shape.exits};
  if (vocabulary_->num_nodes() > 1) walk(state, 1, vocabulary_->num_nodes(), whole);
  shape.max_depth = whole.max_depth;
  shape.is_usable = !whole.failed && whole.exits != nullptr;
  if (!shape.is_usable) shape = Shape();
  size_bytes_ += (shape.mask.size() + shape.exits.size()) * sizeof(uint32_t) + sizeof(Shape) + 64;
  return &shape;
}

bool Machine::make_mask(StateId state, TokenMask& mask) {
  const StackId base = base_of(state);
  const bool is_short = base == 0 && states_[index(state)].max_depth == 0;
  if (is_short) return walk_whole(state, mask);
  const Shape* shape = shape_of(without_base(state, base));
  // Near the limit on nesting it matters how many calls lie below.
  if (!shape->is_usable || depth(base) + shape->max_depth >= kNestingMax) {
    return walk_whole(state, mask);
  }
  mask = shape->mask;
  if (base == 0 || shape->exits.empty()) return true;
  const Frame frame = frames_[base];
  const StateId returned = close({{automaton_.nodes[frame.node].next, frame.parent}});
  if (returned == kDead) return true;
  if (returned == kTooMany) return false;
  for (const uint32_t node : shape->exits) {
    Walk below = {.mask = &mask};
    walk(returned, node + 1, vocabulary_->subtree_end(node), below);
    if (below.failed) return false;
  }
  return true;
}

void Machine::begin_work() {
  work_ = 0;
  states_before_ = states_.size();
}

// A rule's start, and what follows a quotation mark there.
void Machine::prepare() {
  const size_t num_rules = std::min(automaton_.rules.size(), kPreparedMax);
  for (size_t i = 0; i < num_rules; ++i) {
    begin_work();
    const NodeId start = automaton_.rules[i].start;
    const StateId state = automaton_.is_live[start] ? close({{start, 0}}) : kDead;
    if (state < 0) continue;
    shape_of(without_base(state, 0));
    begin_work();
    const StateId in_string = step(state, '"');
    if (in_string >= 0) shape_of(without_base(in_string, 0));
  }
}

std::shared_ptr<const TokenMask> Machine::mask(StateId state) {
  const auto found = masks_.find(state);
  if (found != masks_.end()) return found->second;
  begin_work();
  auto mask = std::make_shared<TokenMask>(vocabulary_->num_words(), 0);
  if (!make_mask(state, *mask)) return nullptr;
  if (accepts(state)) {
    for (const TokenId token : vocabulary_->end_tokens()) allow(*mask, token);
  }
  masks_.emplace(state, mask);
  size_bytes_ += mask->size() * sizeof(uint32_t) + 128;
  return mask;
}

}  // namespace nanocp::grammar
