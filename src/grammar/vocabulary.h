// The tokens of a model as bytes, sorted into a tree of their common beginnings: what masks of
// allowed tokens are made from. Made once for a model; immutable, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "plan/ids.h"
#include "plan/token_mask.h"
#include "text/tokenizer.h"

namespace nanocp::grammar {

class Vocabulary {
 public:
  // Special and added tokens of `tokenizer` are never part of a text; `end_tokens` (the model's)
  // are allowed where a text may end.
  static std::shared_ptr<const Vocabulary> create(const text::Tokenizer& tokenizer,
                                                  std::vector<TokenId> end_tokens);
  // `tokens[id]` are the bytes of token id; empty: never part of a text.
  Vocabulary(std::vector<std::string> tokens, std::vector<TokenId> end_tokens);

  size_t num_words() const { return num_words_; }  // of a mask
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }
  bool is_end_token(TokenId token) const;
  // Empty for tokens that are never part of a text.
  const std::string& bytes(TokenId token) const;
  size_t longest_bytes() const { return longest_bytes_; }  // of any token

  // Nodes in preorder; node 0 is the root, which has no byte.
  size_t num_nodes() const { return byte_.size(); }
  uint8_t byte(size_t node) const { return byte_[node]; }
  uint32_t depth(size_t node) const { return depth_[node]; }  // of the root: 0
  size_t subtree_end(size_t node) const { return end_[node]; }
  // The tokens that end at this node.
  std::span<const TokenId> tokens(size_t node) const {
    return std::span(tokens_).subspan(first_token_[node],
                                      first_token_[node + 1] - first_token_[node]);
  }

 private:
  void add_tree();

  std::vector<std::string> bytes_;  // by id
  std::vector<TokenId> end_tokens_;
  size_t num_words_ = 0;
  size_t longest_bytes_ = 0;
  std::vector<uint8_t> byte_;
  std::vector<uint32_t> depth_;
  std::vector<uint32_t> end_;
  std::vector<uint32_t> first_token_;  // in tokens_, [num_nodes + 1]
  std::vector<TokenId> tokens_;        // by bytes
};

}  // namespace nanocp::grammar
