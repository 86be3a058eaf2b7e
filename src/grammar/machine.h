// Runs an Automaton over bytes: states are sets of places in it, each with its open calls, found
// and numbered as texts lead to them, with their transitions and masks kept. One thread at a time.
//
// Masks of a whole vocabulary are made by walking its tree of tokens. Most of that is done once for
// all states that only differ in the calls below those that a token can end: the state is cut from
// them (its shape), the walk notes at which tokens it would have returned to them, and only what
// lies behind these is walked for the state itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocabulary.h"
#include "plan/token_mask.h"

namespace nanocp::grammar {

using StateId = int32_t;
constexpr StateId kDead = -1;     // no text of the grammar begins like this
constexpr StateId kTooMany = -2;  // the grammar is too ambiguous: a limit was reached

class Machine {
 public:
  // Requires: check_automaton(automaton).ok().
  Machine(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary);

  StateId start() const { return start_; }
  // Requires: state >= 0.
  StateId step(StateId state, uint8_t byte) {
    const StateId known = transitions_[transition_of(state, byte)];
    return known == kUnknown ? find_step(state, byte) : known;
  }
  // Whether the text may end here.
  bool accepts(StateId state) const { return states_[index(state)].accepts; }
  // Tokens that may follow; null if a limit was reached.
  std::shared_ptr<const TokenMask> mask(StateId state);

  // Makes what masks inside of strings and other rules have in common, which takes a millisecond
  // for each, before somebody waits for it.
  void prepare();

  size_t size_bytes() const { return size_bytes_; }
  // Forgets all states but start(): other ids are no longer valid.
  void clear();

 private:
  using StackId = uint32_t;  // 0: no open call
  // An open call or repetition.
  struct Frame {
    StackId parent;
    NodeId node;     // the kCall or kRepeat
    uint32_t count;  // repetitions that are over
    uint32_t depth;  // frames from here down
    bool operator==(const Frame& other) const {
      return parent == other.parent && node == other.node && count == other.count;
    }
  };
  struct Config {
    NodeId node;  // a kByte, or kAccept
    StackId stack;
    bool operator==(const Config&) const = default;
    auto operator<=>(const Config&) const =
        default;  // NOLINT(modernize-use-nullptr): clang-tidy 14
  };
  // A place that is still to be followed to its bytes. The top `num_fresh` frames of the stack were
  // opened since the last byte.
  struct Pending {
    Config config;
    uint32_t num_fresh;
    bool operator==(const Pending&) const = default;
  };
  struct State {
    uint32_t first;  // in configs_
    uint32_t count;
    uint32_t max_depth;
    bool accepts;
  };
  // What a walk found for a state without the calls below.
  struct Shape {
    TokenMask mask;
    std::vector<uint32_t> exits;  // nodes of the vocabulary, with nodes below, at which it accepts
    uint32_t max_depth = 0;       // of the states seen
    bool is_usable = false;
  };
  struct FrameHash {
    size_t operator()(const Frame& frame) const;
  };
  struct Walk {
    TokenMask* mask;
    std::vector<uint32_t>* exits = nullptr;
    uint32_t max_depth = 0;
    bool failed = false;
  };

  static constexpr StateId kUnknown = -3;

  static size_t index(StateId state) { return static_cast<size_t>(state); }
  size_t transition_of(StateId state, uint8_t byte) const {
    return index(state) * byte_of_.size() + class_of_[byte];
  }
  StateId find_step(StateId state, uint8_t byte);
  void find_byte_classes();
  StackId push(StackId parent, NodeId node, uint32_t count);
  uint32_t depth(StackId stack) const { return frames_[stack].depth; }
  // Follows places to their bytes and numbers the result.
  StateId close(const std::vector<Config>& places);
  void expand(const Pending& pending);
  void expand_end(const Pending& pending);
  void open_call(const Pending& pending, const Node& node);
  void open_repeat(const Pending& pending);
  void add_pending(Config config, uint32_t num_fresh);
  StateId intern(std::vector<Config>& configs);
  bool may_nest(StackId stack) const;

  void walk(StateId state, size_t begin, size_t end, Walk& walk);
  bool walk_whole(StateId state, TokenMask& mask);
  StackId base_of(StateId state) const;
  StateId without_base(StateId state, StackId base);
  StackId moved(StackId stack, StackId base);
  uint32_t representative(const Frame& frame) const;
  const Shape* shape_of(StateId state);
  void begin_work();
  bool make_mask(StateId state, TokenMask& mask);

  Automaton automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::array<uint16_t, 256> class_of_ = {};
  std::vector<uint8_t> byte_of_;  // any byte of a class
  StateId start_ = kDead;

  std::vector<Frame> frames_;  // by StackId
  std::unordered_map<Frame, StackId, FrameHash> stack_ids_;
  std::vector<Config> configs_;
  std::vector<State> states_;
  std::unordered_multimap<uint64_t, StateId> state_ids_;  // by hash of the configs
  std::vector<StateId> transitions_;                      // [states][classes]
  std::unordered_map<StateId, Shape> shapes_;
  std::unordered_map<StateId, std::shared_ptr<const TokenMask>> masks_;
  size_t size_bytes_ = 0;

  // Of close().
  std::vector<Pending> pending_;  // done ones first
  std::vector<Config> closed_;
  std::vector<uint32_t> slots_;  // hash table of pending_: its round << 16 | place + 1
  bool overflow_ = false;
  // Of the mask that is being made.
  std::vector<StateId> path_;
  int64_t work_ = 0;
  size_t states_before_ = 0;
};

}  // namespace nanocp::grammar
