#include "text/tokenizer.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/text_file.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

constexpr int64_t kFileBytesMax = int64_t{256} << 20;

// <0xE4> is the byte e4.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

// The bytes that a token of the vocabulary stands for.
std::string decoded(const std::string& token, const DecoderSpec& decoder) {
  if (decoder.byte_level) return bytes_of_characters(token).value_or(token);
  if (decoder.byte_fallback) {
    if (const auto byte = fallback_byte(token)) return std::string(1, *byte);
  }
  std::string storage;
  return std::string(Normalizer(decoder.replacements).apply(token, storage));
}

}  // namespace

Result<Tokenizer> Tokenizer::from_file(const std::filesystem::path& path) {
  NANOCP_ASSIGN_OR_RETURN(const std::string content, read_text_file(path, kFileBytesMax));
  return from_json(content, path.string());
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json_text, const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(TokenizerSpec spec, parse_tokenizer(json_text, name));
  return Tokenizer(std::move(spec));
}

// Working memory of one call.
struct Tokenizer::Scratch {
  PreTokenizer::Scratch pre_tokenizer;
  std::string normalized;
  std::vector<TextSegment> segments;
  std::vector<std::string_view> pieces;
  std::vector<TokenId> symbols;
};

Tokenizer::Tokenizer(TokenizerSpec spec)
    : normalizer_(std::move(spec.normalizer)),
      pre_tokenizer_(std::move(spec.pre_tokenizer)),
      byte_level_(spec.decoder.byte_level),
      ignore_merges_(spec.ignore_merges),
      num_leading_spaces_(spec.decoder.num_leading_spaces),
      first_token_without_spaces_(spec.decoder.first_token_without_spaces),
      byte_tokens_(spec.byte_tokens),
      bpe_(spec.merges),
      prefix_tokens_(std::move(spec.prefix_tokens)),
      suffix_tokens_(std::move(spec.suffix_tokens)),
      model_vocab_size_(spec.vocab.size()) {
  size_t size = spec.vocab.size();
  for (const AddedToken& token : spec.added_tokens) {
    size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  bytes_.resize(size);
  special_.resize(size, false);
  add_vocab(std::move(spec.vocab), spec.decoder);
  for (const AddedToken& token : spec.added_tokens) add_token(token, spec.decoder);
  if (byte_level_) add_whole_tokens();
}

void Tokenizer::add_vocab(std::vector<std::string> vocab, const DecoderSpec& decoder) {
  id_of_content_.reserve(vocab.size());
  for (size_t id = 0; id < vocab.size(); ++id) {
    if (vocab[id].empty()) continue;
    bytes_[id] = decoded(vocab[id], decoder);
    id_of_content_.emplace(std::move(vocab[id]), static_cast<TokenId>(id));
  }
}

void Tokenizer::add_token(const AddedToken& token, const DecoderSpec& decoder) {
  const auto index = static_cast<size_t>(token.id);
  if (bytes_[index].empty()) bytes_[index] = decoded(token.content, decoder);
  special_[index] = token.special;
  id_of_content_.emplace(token.content, token.id);
  if (!token.normalized) {
    raw_matcher_.add(token);
    return;
  }
  std::string storage;
  AddedToken normalized = token;
  normalized.content = normalizer_.apply(token.content, storage);
  normalized_matcher_.add(normalized);
}

// With ignore_merges every token of the model counts, else only what merging arrives at.
void Tokenizer::add_whole_tokens() {
  whole_tokens_.reserve(model_vocab_size_);
  std::vector<TokenId> symbols;
  std::vector<TokenId> merged;
  for (size_t id = 0; id < model_vocab_size_; ++id) {
    if (bytes_[id].empty()) continue;
    if (!ignore_merges_) {
      symbols.clear();
      merged.clear();
      append_symbols(bytes_[id], symbols);
      bpe_.encode(symbols, merged);
      if (merged.size() != 1 || merged[0] != static_cast<TokenId>(id)) continue;
    }
    whole_tokens_.emplace(bytes_[id], static_cast<TokenId>(id));
  }
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<TokenId> tokens;
  if (options.add_special) tokens = prefix_tokens_;
  Scratch scratch;
  std::vector<TextSegment> outer;
  raw_matcher_.split(text, options.allow_special, outer);
  for (const TextSegment& segment : outer) {
    if (segment.token) {
      tokens.push_back(*segment.token);
      continue;
    }
    const std::string_view normalized = normalizer_.apply(segment.text, scratch.normalized);
    scratch.segments.clear();
    normalized_matcher_.split(normalized, options.allow_special, scratch.segments);
    for (const TextSegment& part : scratch.segments) {
      if (part.token) {
        tokens.push_back(*part.token);
        continue;
      }
      const bool at_start =
          segment.text.data() == text.data() && part.text.data() == normalized.data();
      encode_text(part.text, at_start, scratch, tokens);
    }
  }
  if (options.add_special) {
    tokens.insert(tokens.end(), suffix_tokens_.begin(), suffix_tokens_.end());
  }
  return tokens;
}

void Tokenizer::encode_text(std::string_view text, bool at_start, Scratch& scratch,
                            std::vector<TokenId>& tokens) const {
  pre_tokenizer_.split(text, at_start, scratch.pieces, scratch.pre_tokenizer);
  for (const std::string_view piece : scratch.pieces) encode_piece(piece, scratch, tokens);
}

void Tokenizer::encode_piece(std::string_view piece, Scratch& scratch,
                             std::vector<TokenId>& tokens) const {
  const auto found = whole_tokens_.find(piece);
  if (found != whole_tokens_.end()) {
    tokens.push_back(found->second);
    return;
  }
  scratch.symbols.clear();
  append_symbols(piece, scratch.symbols);
  bpe_.encode(scratch.symbols, tokens);
}

void Tokenizer::append_symbols(std::string_view piece, std::vector<TokenId>& symbols) const {
  if (byte_level_) {
    for (const char c : piece) symbols.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
    return;
  }
  std::string character;
  for (size_t position = 0; position < piece.size();) {
    character = piece.substr(position, next_utf8(piece, position).length);
    position += character.size();
    const auto found = id_of_content_.find(character);
    if (found != id_of_content_.end() && static_cast<size_t>(found->second) < model_vocab_size_) {
      symbols.push_back(found->second);
    } else {
      for (const char c : character) symbols.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
    }
  }
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const TokenId token : tokens) text.append(detokenizer.push(token));
  return text.append(detokenizer.flush());
}

std::string_view Tokenizer::token_bytes(TokenId token) const {
  if (token < 0 || token >= vocab_size()) return {};
  return bytes_[static_cast<size_t>(token)];
}

bool Tokenizer::is_special(TokenId token) const {
  return token >= 0 && token < vocab_size() && special_[static_cast<size_t>(token)];
}

std::optional<TokenId> Tokenizer::token_id(std::string_view content) const {
  const auto found = id_of_content_.find(std::string(content));
  if (found == id_of_content_.end()) return std::nullopt;
  return found->second;
}

}  // namespace nanocp::text
