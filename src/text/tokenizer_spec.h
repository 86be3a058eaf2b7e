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
#include "text/split_pattern.h"

namespace nanocp::text {

struct TokenizerSpec {
  SplitPattern split = SplitPattern::kGpt2;
  bool add_prefix_space = false;   // a stretch of text that does not start with a space gets one
  bool ignore_merges = false;      // a piece that is in the vocabulary is one token
  std::vector<std::string> vocab;  // by id, as written; empty: no such id
  std::array<TokenId, 256> byte_tokens{};  // the token of each single byte
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added_tokens;
};

// `name` stands for the file in messages.
Result<TokenizerSpec> parse_tokenizer(std::string_view json_text, const std::string& name);

}  // namespace nanocp::text
