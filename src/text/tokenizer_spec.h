// What a tokenizer.json says, checked and in plain data. Components that NanoCP cannot reproduce
// exactly are refused by name, so that no text is silently cut in another way than in training.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace nanocp::text {

// How tokens become text.
struct DecoderSpec {
  bool byte_level = true;      // the characters of a token stand for bytes (byte_level.h)
  bool byte_fallback = false;  // a token <0xE4> is that byte; set without byte_level only
  std::vector<NormalizerStep> replacements;  // in each token, of kind kReplace
  int32_t num_leading_spaces = 0;            // as many are dropped at the start of the text
  bool first_token_without_spaces = false;   // the first token loses all of them
};

struct TokenizerSpec {
  std::vector<NormalizerStep> normalizer;
  PreTokenizerSpec pre_tokenizer;
  DecoderSpec decoder;
  bool ignore_merges = false;              // a piece that is in the vocabulary is one token
  std::vector<std::string> vocab;          // by id, as written; empty: no such id
  std::array<TokenId, 256> byte_tokens{};  // the token of each single byte
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added_tokens;
  std::vector<TokenId> prefix_tokens;  // around a text where special tokens are asked for
  std::vector<TokenId> suffix_tokens;
};

// `name` stands for the file in messages.
Result<TokenizerSpec> parse_tokenizer(std::string_view json_text, const std::string& name);

}  // namespace nanocp::text
