// Text to token ids and back, as the tokenizer.json of a checkpoint says: byte-level BPE, or BPE
// over characters with a fallback to bytes. Immutable after construction, so that one serves all
// threads; the server or command owns it.
#pragma once

#include <array>
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

struct EncodeOptions {
  // Special tokens written in the text are recognised. Off for text of users: they must not be able
  // to forge a turn of the conversation.
  bool allow_special = false;
  // The tokens that the post-processor puts around a text, such as <s>. Off for a rendered chat
  // template, which writes them itself.
  bool add_special = false;
};

class Tokenizer {
 public:
  static Result<Tokenizer> from_file(const std::filesystem::path& path);
  // `name` stands for the file in messages.
  static Result<Tokenizer> from_json(std::string_view json_text, const std::string& name);

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The tokens of `text`. Any bytes are allowed; what the normaliser leaves of them is kept.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const;
  std::vector<TokenId> encode(std::string_view text, bool allow_special) const {
    return encode(text, {.allow_special = allow_special});
  }

  // Always valid UTF-8: broken sequences become U+FFFD. Ids that are not in the vocabulary are
  // skipped, as models have padded vocabularies.
  std::string decode(std::span<const TokenId> tokens, bool skip_special) const;

  // The bytes of one token, which need not be whole characters. Empty for an unknown id.
  std::string_view token_bytes(TokenId token) const;

  // What decoding drops at the start of a text: this many spaces, and all spaces of the first
  // token.
  int32_t num_leading_spaces() const { return num_leading_spaces_; }
  bool first_token_without_spaces() const { return first_token_without_spaces_; }

  bool is_special(TokenId token) const;
  // Whether the token was added to the model's vocabulary, as marks are: <think>, <tool_call>.
  bool is_added(TokenId token) const {
    return token >= 0 && static_cast<size_t>(token) >= model_vocab_size_;
  }
  // The id of a token as tokenizer.json writes it, e.g. "<|im_end|>".
  std::optional<TokenId> token_id(std::string_view content) const;
  // The largest id plus one.
  int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }

 private:
  explicit Tokenizer(TokenizerSpec spec);
  struct Scratch;
  void add_vocab(std::vector<std::string> vocab, const DecoderSpec& decoder);
  void add_token(const AddedToken& token, const DecoderSpec& decoder);
  void add_whole_tokens();
  void encode_text(std::string_view text, bool at_start, Scratch& scratch,
                   std::vector<TokenId>& tokens) const;
  void encode_piece(std::string_view piece, Scratch& scratch, std::vector<TokenId>& tokens) const;
  // The tokens of single bytes or characters, before merging.
  void append_symbols(std::string_view piece, std::vector<TokenId>& symbols) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  bool byte_level_;
  bool ignore_merges_;
  int32_t num_leading_spaces_;
  bool first_token_without_spaces_;
  std::array<TokenId, 256> byte_tokens_;
  Bpe bpe_;
  std::vector<TokenId> prefix_tokens_;
  std::vector<TokenId> suffix_tokens_;
  AddedTokenMatcher raw_matcher_;         // runs first
  AddedTokenMatcher normalized_matcher_;  // on what the first one leaves, normalised
  size_t model_vocab_size_;               // ids below it are of the model, not added
  std::vector<std::string> bytes_;        // by id
  std::vector<bool> special_;             // by id
  std::unordered_map<std::string, TokenId> id_of_content_;
  // Pieces that are one token, into bytes_: a look-up instead of merges. Byte-level only.
  std::unordered_map<std::string_view, TokenId> whole_tokens_;
};

}  // namespace nanocp::text
