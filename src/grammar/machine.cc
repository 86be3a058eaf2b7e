#include "grammar/machine.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "grammar/limits.h"

namespace nanocp::grammar {
namespace {

using Kind = Node::Kind;

constexpr NodeId kAccept = UINT32_MAX;

uint64_t pair_bits(uint32_t a, uint32_t b) {
  return static_cast<uint64_t>(a) << 32 | b;
}

}  // namespace

size_t Machine::FrameHash::operator()(const Frame& frame) const {
  return mix_bits(mix_bits(pair_bits(frame.parent, frame.node)) + frame.count);
}

Machine::Machine(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary)
    : automaton_(std::move(automaton)), vocabulary_(std::move(vocabulary)) {
  find_byte_classes();
  clear();
}

// Bytes that no node tells apart share their transitions.
void Machine::find_byte_classes() {
  size_t num_classes = 1;
  for (const ByteSet& set : automaton_.byte_sets) {
    std::vector<uint16_t> split(num_classes, UINT16_MAX);
    std::array<uint16_t, 256> next = class_of_;
    std::vector<bool> stays(num_classes, false);
    for (size_t b = 0; b < 256; ++b) {
      if (!set.contains(static_cast<uint8_t>(b))) stays[class_of_[b]] = true;
    }
    for (size_t b = 0; b < 256; ++b) {
      const uint16_t old = class_of_[b];
      if (!set.contains(static_cast<uint8_t>(b)) || !stays[old]) continue;
      if (split[old] == UINT16_MAX) split[old] = static_cast<uint16_t>(num_classes++);
      next[b] = split[old];
    }
    class_of_ = next;
    if (num_classes == 256) break;
  }
  byte_of_.assign(num_classes, 0);
  for (size_t b = 0; b < 256; ++b) byte_of_[class_of_[b]] = static_cast<uint8_t>(b);
}

void Machine::clear() {
  frames_ = {{.parent = 0, .node = 0, .count = 0, .depth = 0}};
  stack_ids_.clear();
  configs_.clear();
  states_.clear();
  state_ids_.clear();
  transitions_.clear();
  shapes_.clear();
  masks_.clear();
  size_bytes_ = 0;
  work_ = 0;
  states_before_ = 0;
  start_ = close({{automaton_.start, 0}});
}

Machine::StackId Machine::push(StackId parent, NodeId node, uint32_t count) {
  const Frame frame = {parent, node, count, frames_[parent].depth + 1};
  const auto [found, is_first] = stack_ids_.emplace(frame, static_cast<StackId>(frames_.size()));
  if (is_first) {
    frames_.push_back(frame);
    size_bytes_ += 5 * sizeof(Frame);
  }
  return found->second;
}

StateId Machine::find_step(StateId state, uint8_t byte) {
  const size_t at = transition_of(state, byte);
  const uint8_t any = byte_of_[class_of_[byte]];
  std::vector<Config> places;
  const State& from = states_[index(state)];
  work_ += from.count;
  for (uint32_t i = from.first; i < from.first + from.count; ++i) {
    const Config& config = configs_[i];
    if (config.node == kAccept) continue;
    const Node& node = automaton_.nodes[config.node];
    if (automaton_.byte_sets[node.a].contains(any)) places.push_back({node.next, config.stack});
  }
  const StateId next = places.empty() ? kDead : close(places);
  transitions_[at] = next;
  return next;
}

void Machine::add_pending(Config config, uint32_t num_fresh) {
  if (config.node != kAccept && !automaton_.is_live[config.node]) return;
  const Pending pending = {config, num_fresh};
  // Few as a rule: then comparing is quicker than any table.
  constexpr size_t kCompared = 24;
  if (pending_.size() < kCompared) {
    if (std::find(pending_.begin(), pending_.end(), pending) != pending_.end()) return;
    pending_.push_back(pending);
    return;
  }
  constexpr size_t kSlots = 4 * kConfigsMax;
  const auto slot_of = [](const Pending& p) {
    return mix_bits(pair_bits(p.config.node, p.config.stack) * 31 + p.num_fresh) % kSlots;
  };
  const auto insert = [&](const Pending& p, uint32_t place) {
    size_t slot = slot_of(p);
    for (; slots_[slot] != 0; slot = (slot + 1) % kSlots) {
      if (pending_[slots_[slot] - 1] == p) return false;
    }
    slots_[slot] = place + 1;
    return true;
  };
  if (pending_.size() == kCompared) {
    slots_.assign(kSlots, 0);
    for (uint32_t i = 0; i < kCompared; ++i) insert(pending_[i], i);
  }
  if (pending_.size() >= 2 * kConfigsMax) {
    overflow_ = true;
    return;
  }
  if (insert(pending, static_cast<uint32_t>(pending_.size()))) pending_.push_back(pending);
}

StateId Machine::close(const std::vector<Config>& places) {
  pending_.clear();
  closed_.clear();
  overflow_ = false;
  for (const Config& place : places) add_pending(place, 0);
  for (size_t i = 0; i < pending_.size() && !overflow_; ++i) expand(Pending(pending_[i]));
  work_ += static_cast<int64_t>(pending_.size());
  std::sort(closed_.begin(), closed_.end());
  closed_.erase(std::unique(closed_.begin(), closed_.end()), closed_.end());
  if (overflow_ || closed_.size() > kConfigsMax) return kTooMany;
  return closed_.empty() ? kDead : intern(closed_);
}

void Machine::expand(const Pending& pending) {
  const NodeId id = pending.config.node;
  if (id == kAccept) {
    closed_.push_back(pending.config);
    return;
  }
  const Node& node = automaton_.nodes[id];
  switch (node.kind) {
    case Kind::kByte:
      closed_.push_back(pending.config);
      return;
    case Kind::kSplit:
      for (uint32_t i = 0; i < node.b; ++i) {
        add_pending({automaton_.targets[node.a + i], pending.config.stack}, pending.num_fresh);
      }
      return;
    case Kind::kCall:
      open_call(pending, node);
      return;
    case Kind::kRepeat:
      open_repeat(pending);
      return;
    case Kind::kEnd:
      expand_end(pending);
      return;
  }
}

void Machine::open_call(const Pending& pending, const Node& node) {
  const Rule& rule = automaton_.rules[node.a];
  const StackId stack = pending.config.stack;
  if (depth(stack) >= (rule.nests ? kNestingMax : kStackMax)) return;
  // What ends with a call goes on in the caller's place: lists that recur at their end stay flat.
  if (automaton_.nodes[node.next].kind == Kind::kEnd) {
    add_pending({rule.start, stack}, pending.num_fresh);
    return;
  }
  add_pending({rule.start, push(stack, pending.config.node, 0)}, pending.num_fresh + 1);
}

void Machine::open_repeat(const Pending& pending) {
  const Node& node = automaton_.nodes[pending.config.node];
  const Repeat& repeat = automaton_.repeats[node.a];
  const StackId stack = pending.config.stack;
  if (repeat.min == 0) add_pending({node.next, stack}, pending.num_fresh);
  if (depth(stack) >= kStackMax) return;
  add_pending({repeat.body, push(stack, pending.config.node, 0)}, pending.num_fresh + 1);
}

void Machine::expand_end(const Pending& pending) {
  const StackId stack = pending.config.stack;
  if (stack == 0) {
    add_pending({kAccept, 0}, 0);
    return;
  }
  const Frame frame = frames_[stack];
  const Node& node = automaton_.nodes[frame.node];
  const bool is_fresh = pending.num_fresh > 0;
  const uint32_t num_fresh = is_fresh ? pending.num_fresh - 1 : 0;
  if (node.kind == Kind::kCall) {
    add_pending({node.next, frame.parent}, num_fresh);
    return;
  }
  const Repeat& repeat = automaton_.repeats[node.a];
  // A repetition that read nothing: so may all that are still asked for.
  if (is_fresh) {
    add_pending({node.next, frame.parent}, num_fresh);
    return;
  }
  const uint32_t done = frame.count + 1;
  if (done >= repeat.min) add_pending({node.next, frame.parent}, num_fresh);
  if (repeat.max != kUnbounded && done >= repeat.max) return;
  const uint32_t count = repeat.max == kUnbounded ? std::min(done, repeat.min) : done;
  add_pending({repeat.body, push(frame.parent, frame.node, count)}, num_fresh + 1);
}

StateId Machine::intern(std::vector<Config>& configs) {
  uint64_t hash = configs.size();
  for (const Config& config : configs) {
    hash = mix_bits(hash + pair_bits(config.node, config.stack) * 0x9e3779b97f4a7c15ULL);
  }
  const auto [first, last] = state_ids_.equal_range(hash);
  for (auto found = first; found != last; ++found) {
    const State& state = states_[index(found->second)];
    const auto begin = configs_.begin() + state.first;
    if (std::equal(configs.begin(), configs.end(), begin, begin + state.count)) {
      return found->second;
    }
  }
  State state = {.first = static_cast<uint32_t>(configs_.size()),
                 .count = static_cast<uint32_t>(configs.size()),
                 .max_depth = 0,
                 .accepts = configs.back().node == kAccept};
  for (const Config& config : configs) {
    state.max_depth = std::max(state.max_depth, depth(config.stack));
  }
  const auto id = static_cast<StateId>(states_.size());
  states_.push_back(state);
  configs_.insert(configs_.end(), configs.begin(), configs.end());
  transitions_.insert(transitions_.end(), byte_of_.size(), kUnknown);
  state_ids_.emplace(hash, id);
  size_bytes_ += sizeof(State) + 2 * configs.size() * sizeof(Config) +
                 2 * byte_of_.size() * sizeof(StateId) + 64;
  return id;
}

}  // namespace nanocp::grammar
