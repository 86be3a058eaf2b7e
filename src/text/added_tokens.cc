#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace nanocp::text {
namespace {

uint64_t edge_key(int32_t node, char byte) {
  return (static_cast<uint64_t>(node) << 8) | static_cast<uint8_t>(byte);
}

// Where the last character of text[0, end) starts. Requires: end > 0.
size_t start_of_last_char(std::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && end - start < 4 && (static_cast<uint8_t>(text[start]) & 0xc0U) == 0x80) {
    --start;
  }
  const Utf8Step step = next_utf8(text.substr(0, end), start);
  return start + step.length == end ? start : end - 1;
}

char32_t char_from(std::string_view text, size_t position) {
  return next_utf8(text, position).code_point;
}

size_t skip_spaces_back(std::string_view text, size_t position, size_t limit) {
  while (position > limit) {
    const size_t start = start_of_last_char(text, position);
    if (start < limit || char_class(char_from(text, start)) != CharClass::kSpace) break;
    position = start;
  }
  return position;
}

size_t skip_spaces(std::string_view text, size_t position) {
  while (position < text.size()) {
    const Utf8Step step = next_utf8(text, position);
    if (char_class(step.code_point) != CharClass::kSpace) break;
    position += step.length;
  }
  return position;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word_char(char_from(text, start_of_last_char(text, begin)))) return true;
  return end < text.size() && is_word_char(char_from(text, end));
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token) {
  int32_t node = 0;
  for (const char byte : token.content) {
    const auto next = static_cast<int32_t>(token_of_node_.size());
    const auto [edge, inserted] = edges_.try_emplace(edge_key(node, byte), next);
    if (inserted) token_of_node_.push_back(-1);
    node = edge->second;
  }
  if (node == 0) return;
  is_first_byte_[static_cast<uint8_t>(token.content[0])] = true;
  token_of_node_[static_cast<size_t>(node)] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

const AddedToken* AddedTokenMatcher::match(std::string_view text, size_t position) const {
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (; position < text.size(); ++position) {
    const auto edge = edges_.find(edge_key(node, text[position]));
    if (edge == edges_.end()) break;
    node = edge->second;
    const int32_t token = token_of_node_[static_cast<size_t>(node)];
    if (token >= 0) longest = &tokens_[static_cast<size_t>(token)];
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text, bool allow_special,
                              std::vector<TextSegment>& segments) const {
  size_t done = 0;  // text before it is in segments
  const auto add_text = [&](size_t end) {
    if (end > done) segments.push_back({text.substr(done, end - done), std::nullopt});
  };
  size_t position = 0;
  while (position < text.size()) {
    const AddedToken* token = nullptr;
    if (is_first_byte_[static_cast<uint8_t>(text[position])]) token = match(text, position);
    if (token == nullptr) {
      ++position;
      continue;
    }
    const size_t end = position + token->content.size();
    const bool wanted = (allow_special || !token->special) &&
                        !(token->single_word && touches_word(text, position, end));
    if (wanted) {
      const size_t begin = token->lstrip ? skip_spaces_back(text, position, done) : position;
      add_text(begin);
      done = token->rstrip ? skip_spaces(text, end) : end;
      segments.push_back({text.substr(begin, done - begin), token->id});
    }
    position = std::max(end, done);
  }
  add_text(text.size());
}

}  // namespace nanocp::text
