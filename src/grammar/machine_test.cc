#include "grammar/machine.h"

#include <gtest/gtest.h>

#include "grammar/json_schema.h"
#include "grammar/json_text.h"
#include "grammar/test_walk.h"

namespace nanocp::grammar {
namespace {

using testing_support::kEnd;
using testing_support::token_bytes;

const char* const kSchemas[] = {
    R"({"type":"object"})",
    R"({"type":"array","items":{"type":"array","items":{"type":"integer"}},"minItems":2,"maxItems":40})",
    R"({"type":"object","properties":{"name":{"type":"string"},"a":{"type":"string","maxLength":30},
        "b":{"type":"string","minLength":4,"maxLength":300},"c":{"type":"number"}},
        "additionalProperties":{"type":"string"}})",
    R"({"$defs":{"T":{"type":"object","properties":{"name":{"type":"string"},
        "children":{"type":"array","items":{"$ref":"#/$defs/T"}}},"required":["name","children"]}},
        "$ref":"#/$defs/T"})",
    R"({"anyOf":[{"type":"array","items":{"type":"string"}},
        {"type":"array","items":{"type":["integer","null"]}}]})",
    R"({"enum":["name","na","null",null,12,1.5,["a"],{"x":[]}]})",
};

Automaton automaton_of(const char* schema) {
  Builder builder;
  const auto start = build_json_schema(builder, schema);
  EXPECT_TRUE(start.ok()) << start.error().message;
  auto automaton = builder.finish(*start);
  EXPECT_TRUE(automaton.ok()) << automaton.error().message;
  return std::move(*automaton);
}

// The mask byte by byte, from a machine that has made none.
void expect_mask(Machine& plain, StateId plain_state, const TokenMask& mask) {
  const std::vector<std::string> tokens = token_bytes();
  for (size_t i = 0; i < tokens.size(); ++i) {
    StateId state = plain_state;
    for (const char c : tokens[i]) {
      if (state >= 0) state = plain.step(state, static_cast<uint8_t>(c));
    }
    const bool expected = i == kEnd ? plain.accepts(plain_state) : state >= 0;
    ASSERT_EQ(mask_allows(mask, static_cast<TokenId>(i)), expected) << "token " << tokens[i];
  }
}

// Masks come from shapes and returns; what they say must be what the bytes say, in every state of
// random texts, also when the machine has forgotten everything in between.
TEST(Machine, MaskIsWhatTheBytesSay) {
  const std::vector<std::string> tokens = token_bytes();
  Random random(3);
  for (const char* schema : kSchemas) {
    SCOPED_TRACE(schema);
    const Automaton automaton = automaton_of(schema);
    Machine machine(automaton, testing_support::small_vocabulary());
    Machine plain(automaton, testing_support::small_vocabulary());
    for (int walk = 0; walk < 12; ++walk) {
      StateId state = machine.start();
      StateId plain_state = plain.start();
      for (int i = 0; i < 60; ++i) {
        const auto mask = machine.mask(state);
        ASSERT_NE(mask, nullptr);
        expect_mask(plain, plain_state, *mask);
        if (testing::Test::HasFatalFailure()) return;
        const auto allowed = testing_support::allowed_tokens(*mask, tokens.size());
        ASSERT_FALSE(allowed.empty());
        const TokenId token = allowed[random.below(allowed.size())];
        if (token == kEnd) break;
        for (const char c : tokens[static_cast<size_t>(token)]) {
          state = machine.step(state, static_cast<uint8_t>(c));
          plain_state = plain.step(plain_state, static_cast<uint8_t>(c));
        }
      }
    }
  }
}

TEST(Machine, EqualTextsReachEqualStates) {
  Machine machine(automaton_of(R"({"type":"array","items":{"type":"integer"}})"),
                  testing_support::small_vocabulary());
  const auto read = [&](const std::string& text) {
    StateId state = machine.start();
    for (const char c : text) state = machine.step(state, static_cast<uint8_t>(c));
    return state;
  };
  EXPECT_EQ(read("[1,2,"), read("[77,"));
  EXPECT_EQ(machine.mask(read("[1,2,")), machine.mask(read("[77,")));  // made once
  EXPECT_EQ(read("[1,}"), kDead);
}

TEST(Machine, NestingEndsAtItsLimitAndNotInADeadEnd) {
  Machine machine(automaton_of("true"), testing_support::small_vocabulary());
  StateId state = machine.start();
  int depth = 0;
  for (; depth < 1000; ++depth) {
    const auto mask = machine.mask(state);
    ASSERT_NE(mask, nullptr);
    if (!mask_allows(*mask, '[')) break;
    state = machine.step(state, '[');
  }
  EXPECT_GT(depth, 64);
  EXPECT_LT(depth, 200);
  for (; depth > 0; --depth) state = machine.step(state, ']');
  ASSERT_GE(state, 0);
  EXPECT_TRUE(machine.accepts(state));
}

TEST(Machine, CountsDoNotMakeTheGrammarLarger) {
  const Automaton automaton =
      automaton_of(R"({"type":"string","minLength":50000,"maxLength":100000})");
  EXPECT_LT(automaton.nodes.size(), 200U);
  Machine machine(automaton, testing_support::small_vocabulary());
  StateId state = machine.step(machine.start(), '"');
  for (int i = 0; i < 49'999; ++i) state = machine.step(state, 'a');
  EXPECT_EQ(machine.step(state, '"'), kDead);
  EXPECT_FALSE(mask_allows(*machine.mask(state), '"'));
  for (int i = 0; i < 50'001; ++i) state = machine.step(state, 'a');
  EXPECT_EQ(machine.step(state, 'a'), kDead);
  EXPECT_TRUE(machine.accepts(machine.step(state, '"')));
}

}  // namespace
}  // namespace nanocp::grammar
