#include "text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>

#include "text/byte_level.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

constexpr uintmax_t kFileBytesMax = uintmax_t{256} << 20;

Result<std::string> read_file(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return not_found(path.string() + ": no such file");
  }
  const uintmax_t size_bytes = std::filesystem::file_size(path, error);
  if (error) return Error{ErrorCode::kInternal, path.string() + ": " + error.message()};
  if (size_bytes > kFileBytesMax) {
    return invalid_argument(path.string() + ": larger than 256 MiB, not a tokenizer");
  }
  std::string content(size_bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size_bytes))) {
    return Error{ErrorCode::kInternal, path.string() + ": cannot be read"};
  }
  return content;
}

}  // namespace

Result<Tokenizer> Tokenizer::from_file(const std::filesystem::path& path) {
  NANOCP_ASSIGN_OR_RETURN(const std::string content, read_file(path));
  return from_json(content, path.string());
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json_text, const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(TokenizerSpec spec, parse_tokenizer(json_text, name));
  return Tokenizer(std::move(spec));
}

Tokenizer::Tokenizer(TokenizerSpec spec)
    : split_(spec.split),
      add_prefix_space_(spec.add_prefix_space),
      ignore_merges_(spec.ignore_merges),
      bpe_(spec.byte_tokens, spec.merges) {
  size_t size = spec.vocab.size();
  for (const AddedToken& token : spec.added_tokens) {
    size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  bytes_.resize(size);
  special_.resize(size, false);
  add_vocab(std::move(spec.vocab));
  for (const AddedToken& token : spec.added_tokens) add_token(token);
}

void Tokenizer::add_vocab(std::vector<std::string> vocab) {
  for (size_t id = 0; id < vocab.size(); ++id) {
    if (vocab[id].empty()) continue;
    bytes_[id] = bytes_of_characters(vocab[id]).value_or(vocab[id]);
    id_of_content_.emplace(std::move(vocab[id]), static_cast<TokenId>(id));
    if (ignore_merges_) id_of_bytes_.emplace(bytes_[id], static_cast<TokenId>(id));
  }
}

void Tokenizer::add_token(const AddedToken& token) {
  const auto index = static_cast<size_t>(token.id);
  if (bytes_[index].empty()) {
    bytes_[index] = bytes_of_characters(token.content).value_or(token.content);
  }
  special_[index] = token.special;
  id_of_content_.emplace(token.content, token.id);
  (token.normalized ? normalized_matcher_ : raw_matcher_).add(token);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool allow_special) const {
  std::vector<TokenId> tokens;
  std::vector<TextSegment> outer;
  std::vector<TextSegment> inner;
  raw_matcher_.split(text, allow_special, outer);
  for (const TextSegment& segment : outer) {
    if (segment.token) {
      tokens.push_back(*segment.token);
      continue;
    }
    inner.clear();
    normalized_matcher_.split(segment.text, allow_special, inner);
    for (const TextSegment& part : inner) {
      if (part.token) {
        tokens.push_back(*part.token);
      } else {
        encode_text(part.text, tokens);
      }
    }
  }
  return tokens;
}

void Tokenizer::encode_text(std::string_view text, std::vector<TokenId>& tokens) const {
  std::string prefixed;
  if (add_prefix_space_ && !text.starts_with(' ')) {
    prefixed.append(" ").append(text);
    text = prefixed;
  }
  std::vector<std::string_view> pieces;
  split(split_, text, pieces);
  for (const std::string_view piece : pieces) encode_piece(piece, tokens);
}

void Tokenizer::encode_piece(std::string_view piece, std::vector<TokenId>& tokens) const {
  if (ignore_merges_) {
    const auto found = id_of_bytes_.find(piece);
    if (found != id_of_bytes_.end()) {
      tokens.push_back(found->second);
      return;
    }
  }
  bpe_.encode(piece, tokens);
}

std::string Tokenizer::decode(std::span<const TokenId> tokens, bool skip_special) const {
  std::string bytes;
  for (const TokenId token : tokens) {
    if (!(skip_special && is_special(token))) bytes.append(token_bytes(token));
  }
  std::string text;
  text.reserve(bytes.size());
  append_valid_utf8(bytes, true, text);
  return text;
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
