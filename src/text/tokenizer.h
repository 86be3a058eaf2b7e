// Text to token ids and back, as the tokenizer.json of a checkpoint says (byte-level BPE).
// Immutable after construction, so that one serves all threads; the server or command owns it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "plan/ids.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer_spec.h"

namespace nanocp::text {

class Tokenizer {
 public:
  static Result<Tokenizer> from_file(const std::filesystem::path& path);
  // `name` stands for the file in messages.
  static Result<Tokenizer> from_json(std::string_view json_text, const std::string& name);

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The tokens of `text`; any bytes are allowed and kept. Special tokens written in the text are
  // recognised only with `allow_special`: text of users must not be able to forge them.
  std::vector<TokenId> encode(std::string_view text, bool allow_special) const;

  // Always valid UTF-8: broken sequences become U+FFFD. Ids that are not in the vocabulary are
  // skipped, as models have padded vocabularies.
  std::string decode(std::span<const TokenId> tokens, bool skip_special) const;

  // The bytes of one token, which need not be whole characters. Empty for an unknown id.
  std::string_view token_bytes(TokenId token) const;

  bool is_special(TokenId token) const;
  // The id of a token as tokenizer.json writes it, e.g. "<|im_end|>".
  std::optional<TokenId> token_id(std::string_view content) const;
  // The largest id plus one.
  int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }

 private:
  explicit Tokenizer(TokenizerSpec spec);
  void add_vocab(std::vector<std::string> vocab);
  void add_token(const AddedToken& token);
  void encode_text(std::string_view text, std::vector<TokenId>& tokens) const;
  void encode_piece(std::string_view piece, std::vector<TokenId>& tokens) const;

  SplitPattern split_;
  bool add_prefix_space_;
  bool ignore_merges_;
  Bpe bpe_;
  AddedTokenMatcher raw_matcher_;         // runs first
  AddedTokenMatcher normalized_matcher_;  // on what the first one leaves
  std::vector<std::string> bytes_;        // by id
  std::vector<bool> special_;             // by id
  std::unordered_map<std::string, TokenId> id_of_content_;
  std::unordered_map<std::string_view, TokenId> id_of_bytes_;  // into bytes_, for ignore_merges
};

}  // namespace nanocp::text
