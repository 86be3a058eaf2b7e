// For tests: a small vocabulary, and texts that a constraint allows, drawn at random.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "grammar/structured_output.h"
#include "grammar/vocabulary.h"

namespace nanocp::grammar::testing_support {

constexpr TokenId kEnd = 256;

// A token for each byte, one that ends the text, and pieces that run over the edges of what JSON
// is made of.
inline std::vector<std::string> token_bytes() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
  tokens.emplace_back();
  for (const char* piece :
       {"{\"",      "\":",      "\": \"",   "\",\"", "\"}",  "\"]",  "\"],\"",   "},{\"",
        "[[",       "]]",       "[{\"",     "}]",    "}}",   "null", "true",     "false",
        "nu",       "12",       "00",       "007",   "0.",   ".5",   "-1",       "e+1",
        "abc",      "name",     "\"name",   "na",    "me\"", ", \"", ",\n  \"",  "\n",
        "\n  ",     "    ",     " ",        "\\u00", "\\\"", "\\n",  "\xe2\x82", "\xac",
        "\xc3\xa9", "\xf0\x9f", "\x98\x80", "2024-", "-02",  "-28",  "@ex",      ".com",
        "a\"",      "b\",\"c",  "x\": [",   "],\n",  "1,2",  "1, 2", "},",       "},\n",
        "\"\"",     "[]",       "{}"}) {
    tokens.emplace_back(piece);
  }
  return tokens;
}

inline std::shared_ptr<const Vocabulary> small_vocabulary() {
  return std::make_shared<const Vocabulary>(token_bytes(), std::vector<TokenId>{kEnd});
}

inline std::vector<TokenId> allowed_tokens(const TokenMask& mask, size_t num_tokens) {
  std::vector<TokenId> allowed;
  for (size_t i = 0; i < num_tokens; ++i) {
    if (mask_allows(mask, static_cast<TokenId>(i))) allowed.push_back(static_cast<TokenId>(i));
  }
  return allowed;
}

struct WalkedText {
  std::string text;
  bool is_complete = false;  // the end token came
  std::string problem;
};

// Draws among the allowed tokens; ends as soon as it may once the text has `wanted` tokens, and
// then prefers tokens that close something.
inline WalkedText random_walk(const request::TokenConstraint& constraint, Random& random,
                              size_t wanted, size_t limit = 4000) {
  const std::vector<std::string> tokens = token_bytes();
  const auto state = constraint.start();
  WalkedText walked;
  for (size_t i = 0; i < limit; ++i) {
    const auto mask = state->allowed();
    const std::vector<TokenId> allowed = allowed_tokens(*mask, tokens.size());
    if (allowed.empty()) break;
    TokenId token = allowed[random.below(allowed.size())];
    const bool may_end = allowed.back() == kEnd || mask_allows(*mask, kEnd);
    if (may_end && (i >= wanted || random.below(8) == 0)) token = kEnd;
    if (i >= wanted && token != kEnd) {
      for (const char closing : {'"', '}', ']', '0', '1'}) {
        if (mask_allows(*mask, static_cast<TokenId>(closing))) {
          token = static_cast<TokenId>(closing);
          break;
        }
      }
    }
    if (!state->accept(token)) break;
    walked.is_complete = token == kEnd;
    if (walked.is_complete) break;
    walked.text += tokens[static_cast<size_t>(token)];
  }
  walked.problem = state->problem();
  return walked;
}

// Whether the text, byte by byte, is one that the constraint lets end.
inline bool matches(const request::TokenConstraint& constraint, const std::string& text) {
  const auto state = constraint.start();
  for (const char c : text) {
    if (!state->accept(static_cast<TokenId>(static_cast<uint8_t>(c)))) return false;
  }
  return state->accept(kEnd);
}

}  // namespace nanocp::grammar::testing_support
