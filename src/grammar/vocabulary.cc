#include "grammar/vocabulary.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace nanocp::grammar {
namespace {

const std::string kNoBytes;

size_t common_bytes(const std::string& a, const std::string& b) {
  const auto both = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(both.first - a.begin());
}

}  // namespace

std::shared_ptr<const Vocabulary> Vocabulary::create(const text::Tokenizer& tokenizer,
                                                     std::vector<TokenId> end_tokens) {
  std::vector<std::string> tokens(static_cast<size_t>(tokenizer.vocab_size()));
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id) && !tokenizer.is_added(id)) {
      tokens[static_cast<size_t>(id)] = tokenizer.token_bytes(id);
    }
  }
  return std::make_shared<const Vocabulary>(std::move(tokens), std::move(end_tokens));
}

Vocabulary::Vocabulary(std::vector<std::string> tokens, std::vector<TokenId> end_tokens)
    : bytes_(std::move(tokens)), end_tokens_(std::move(end_tokens)) {
  int64_t num_tokens = std::ssize(bytes_);
  for (const TokenId token : end_tokens_) {
    num_tokens = std::max(num_tokens, int64_t{token} + 1);
    // An end token says that the text is over, whatever it is called.
    if (token >= 0 && static_cast<size_t>(token) < bytes_.size()) {
      bytes_[static_cast<size_t>(token)].clear();
    }
  }
  num_words_ = mask_words(num_tokens);
  for (TokenId id = 0; id < std::ssize(bytes_); ++id) {
    if (!bytes(id).empty()) tokens_.push_back(id);
  }
  std::sort(tokens_.begin(), tokens_.end(), [&](TokenId a, TokenId b) {
    return std::pair<const std::string&, TokenId>(bytes(a), a) <
           std::pair<const std::string&, TokenId>(bytes(b), b);
  });
  add_tree();
}

bool Vocabulary::is_end_token(TokenId token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

const std::string& Vocabulary::bytes(TokenId token) const {
  const auto index = static_cast<size_t>(token);
  return token >= 0 && index < bytes_.size() ? bytes_[index] : kNoBytes;
}

// Nodes come in the order of the tokens' bytes.
void Vocabulary::add_tree() {
  byte_ = {0};
  depth_ = {0};
  end_ = {0};
  first_token_ = {0};
  std::vector<uint32_t> open = {0};  // the nodes from the root to the last one made
  const auto close_to = [&](size_t depth) {
    for (; open.size() > depth + 1; open.pop_back()) {
      end_[open.back()] = static_cast<uint32_t>(byte_.size());
    }
  };
  const std::string* previous = &kNoBytes;
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string& token = bytes(tokens_[i]);
    longest_bytes_ = std::max(longest_bytes_, token.size());
    const size_t common = common_bytes(token, *previous);
    close_to(common);
    for (size_t depth = common; depth < token.size(); ++depth) {
      open.push_back(static_cast<uint32_t>(byte_.size()));
      byte_.push_back(static_cast<uint8_t>(token[depth]));
      depth_.push_back(static_cast<uint32_t>(depth + 1));
      end_.push_back(0);
      first_token_.push_back(i);
    }
    previous = &token;
  }
  close_to(0);
  end_[0] = static_cast<uint32_t>(byte_.size());
  first_token_.push_back(static_cast<uint32_t>(tokens_.size()));
}

}  // namespace nanocp::grammar
