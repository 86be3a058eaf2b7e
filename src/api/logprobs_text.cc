#include "api/logprobs_text.h"

#include <algorithm>
#include <set>

#include "api/json_text.h"
#include "text/unicode.h"

namespace nanocp::api {
namespace {

bool is_valid_utf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const text::Utf8Step step = text::next_utf8(bytes, at);
    if (step.kind != text::Utf8Kind::kValid) return false;
    at += step.length;
  }
  return true;
}

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U; });
}

}  // namespace

void LogprobsText::add(TokenId token, float logprob, TopLogprobs top) {
  top = top.first(std::min(top.size(), static_cast<size_t>(num_top_)));
  if (endpoint_ == Endpoint::kChat) return add_chat(token, logprob, top);
  add_column_token(token);
  append_comma(0, logprobs_);
  append_logprob(logprob, logprobs_);
  append_comma(0, top_);
  add_top(token, logprob, top);
}

void LogprobsText::add_first(TokenId token) {
  add_column_token(token);
  append_comma(0, logprobs_);
  logprobs_ += "null";
  append_comma(0, top_);
  top_ += "null";
}

void LogprobsText::add_chat(TokenId token, float logprob, TopLogprobs top) {
  append_comma(0, entries_);
  append_chat_token(token, logprob, entries_);
  entries_ += ",\"top_logprobs\":[";
  const size_t start = entries_.size();
  for (const auto& [other, other_logprob] : top) {
    append_comma(start, entries_);
    append_chat_token(other, other_logprob, entries_);
    entries_.push_back('}');
  }
  entries_ += "]}";
}

// An object that is left open.
void LogprobsText::append_chat_token(TokenId token, float logprob, std::string& out) const {
  const std::string_view bytes = tokenizer_->token_bytes(token);
  std::string text;
  text::append_valid_utf8(bytes, true, text);
  out += "{\"token\":";
  append_string(text, out);
  out += ",\"logprob\":";
  append_logprob(logprob, out);
  out += ",\"bytes\":[";
  const size_t start = out.size();
  for (const char byte : bytes) {
    append_comma(start, out);
    append_number(static_cast<int>(static_cast<uint8_t>(byte)), out);
  }
  out.push_back(']');
}

// The alternatives and the token itself, which need not be among them. Tokens that look alike are
// one member, the best of them.
void LogprobsText::add_top(TokenId token, float logprob, TopLogprobs top) {
  std::set<std::string> names;
  top_.push_back('{');
  const size_t start = top_.size();
  const auto add_member = [&](TokenId id, float value) {
    const auto [name, is_first] = names.insert(shown(id));
    if (!is_first) return;
    append_comma(start, top_);
    append_string(*name, top_);
    top_.push_back(':');
    append_logprob(value, top_);
  };
  for (const auto& [other, value] : top) add_member(other, value);
  add_member(token, logprob);
  top_.push_back('}');
}

void LogprobsText::add_column_token(TokenId token) {
  const std::string text = shown(token);
  append_comma(0, tokens_);
  append_string(text, tokens_);
  append_comma(0, offsets_);
  append_number(offset_, offsets_);
  offset_ += num_characters(text);
}

std::string LogprobsText::shown(TokenId token) const {
  const std::string_view bytes = tokenizer_->token_bytes(token);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    text += "\\x";
    text.push_back(kHex[byte >> 4U]);
    text.push_back(kHex[byte & 0xfU]);
  }
  return text;
}

void LogprobsText::take(std::string& out) {
  if (endpoint_ == Endpoint::kChat) {
    out += "{\"content\":[";
    out += entries_;
    out += "],\"refusal\":null}";
    entries_.clear();
    return;
  }
  const auto member = [&out](const char* name, std::string& list) {
    out += name;
    out += list;
    out.push_back(']');
    list.clear();
  };
  member("{\"text_offset\":[", offsets_);
  member(",\"token_logprobs\":[", logprobs_);
  member(",\"tokens\":[", tokens_);
  member(",\"top_logprobs\":[", top_);
  out.push_back('}');
}

}  // namespace nanocp::api
