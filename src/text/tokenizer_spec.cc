#include "text/tokenizer_spec.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

#include "text/byte_level.h"
#include "text/json_field.h"
#include "text/tokenizer_components.h"

namespace nanocp::text {
namespace {

constexpr size_t kAddedTokenBytesMax = 1024;

using IdOfToken = std::unordered_map<std::string, TokenId>;

// `field` must be absent or null: its presence changes the tokens in a way not implemented.
Status expect_null(const JsonField& field) {
  if (field.is_null()) return ok_status();
  const auto& value = field.value();
  std::string type;
  if (value.is_object() && value.contains("type") && value["type"].is_string()) {
    type = "of type " + shown(value["type"].get_ref<const std::string&>()) + " ";
  }
  return field.unsupported(type + "is not supported");
}

Status expect_type(const JsonField& component, const std::string& supported) {
  if (component.is_null()) {
    return component.unsupported("is missing; supported: " + supported);
  }
  NANOCP_RETURN_IF_ERROR(component.expect_object());
  NANOCP_ASSIGN_OR_RETURN(const std::string type, component.member("type").string());
  if (type != supported) {
    return component.unsupported("of type " + shown(type) +
                                 " is not supported; supported: " + supported);
  }
  return ok_status();
}

Status check_model_options(const JsonField& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonField field = model.member(key);
    if (field.value().is_string() && field.value().get_ref<const std::string&>().empty()) continue;
    NANOCP_RETURN_IF_ERROR(expect_null(field));
  }
  const JsonField dropout = model.member("dropout");
  if (!dropout.is_null() && !(dropout.value().is_number() && dropout.value() == 0)) {
    return dropout.unsupported("must be null or 0: random merges are for training");
  }
  return ok_status();
}

Status parse_vocab(const JsonField& field, TokenizerSpec& spec, IdOfToken& ids) {
  NANOCP_RETURN_IF_ERROR(field.expect_object());
  ids.reserve(field.value().size());
  for (const auto& [content, value] : field.value().items()) {
    if (content.empty()) return field.invalid("has an empty token");
    if (!value.is_number_integer()) {
      return field.invalid("entry " + shown(content) + " must be an integer");
    }
    const auto id = value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX
                        ? INT64_MAX
                        : value.get<int64_t>();
    if (id < 0 || id > kTokenIdMax) {
      return field.invalid("entry " + shown(content) + " must be between 0 and " +
                           std::to_string(kTokenIdMax));
    }
    const auto index = static_cast<size_t>(id);
    if (index >= spec.vocab.size()) spec.vocab.resize(index + 1);
    if (!spec.vocab[index].empty()) {
      return field.invalid("gives id " + std::to_string(id) + " to both " +
                           shown(spec.vocab[index]) + " and " + shown(content));
    }
    spec.vocab[index] = content;
    ids.emplace(content, static_cast<TokenId>(id));
  }
  return ok_status();
}

// What a byte-fallback vocabulary calls a byte, e.g. <0x0A>.
std::string fallback_name(size_t byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

Status find_byte_tokens(const JsonField& vocab, const IdOfToken& ids, TokenizerSpec& spec) {
  for (size_t byte = 0; byte < spec.byte_tokens.size(); ++byte) {
    const std::string& name =
        spec.decoder.byte_level ? byte_character(static_cast<uint8_t>(byte)) : fallback_name(byte);
    const auto found = ids.find(name);
    if (found == ids.end()) {
      return vocab.invalid(
          "has no token " + shown(name) + " for byte " + std::to_string(byte) +
          (spec.decoder.byte_level ? ", so it is not byte-level" : ", so some text has no tokens"));
    }
    spec.byte_tokens[byte] = found->second;
  }
  return ok_status();
}

// "a b" or ["a", "b"].
Result<std::pair<std::string, std::string>> parse_merge(const JsonField& field) {
  const auto& value = field.value();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (value.is_array() && value.size() == 2 && value[0].is_string() &&
             value[1].is_string()) {
    return std::pair(value[0].get<std::string>(), value[1].get<std::string>());
  }
  return field.invalid("must be two tokens, as \"a b\" or [\"a\", \"b\"]");
}

Status parse_merges(const JsonField& field, const IdOfToken& ids, TokenizerSpec& spec) {
  NANOCP_RETURN_IF_ERROR(field.expect_array());
  spec.merges.reserve(field.value().size());
  for (size_t i = 0; i < field.value().size(); ++i) {
    const JsonField entry = field.element(i);
    NANOCP_ASSIGN_OR_RETURN(const auto pair, parse_merge(entry));
    BpeMerge merge{};
    const std::pair<const std::string, TokenId*> parts[] = {
        {pair.first, &merge.left},
        {pair.second, &merge.right},
        {pair.first + pair.second, &merge.merged}};
    for (const auto& [content, id] : parts) {
      const auto found = ids.find(content);
      if (found == ids.end()) {
        return entry.invalid("names token " + shown(content) + ", which is not in model.vocab");
      }
      *id = found->second;
    }
    spec.merges.push_back(merge);
  }
  return ok_status();
}

Result<AddedToken> parse_added_token(const JsonField& field) {
  NANOCP_RETURN_IF_ERROR(field.expect_object());
  AddedToken token;
  NANOCP_ASSIGN_OR_RETURN(const int64_t id, field.member("id").integer(0, kTokenIdMax));
  token.id = static_cast<TokenId>(id);
  NANOCP_ASSIGN_OR_RETURN(token.content, field.member("content").string());
  if (token.content.empty() || token.content.size() > kAddedTokenBytesMax) {
    return field.member("content").invalid("must have 1 to " + std::to_string(kAddedTokenBytesMax) +
                                           " bytes");
  }
  NANOCP_ASSIGN_OR_RETURN(token.special, field.member("special").boolean(false));
  NANOCP_ASSIGN_OR_RETURN(token.single_word, field.member("single_word").boolean(false));
  NANOCP_ASSIGN_OR_RETURN(token.lstrip, field.member("lstrip").boolean(false));
  NANOCP_ASSIGN_OR_RETURN(token.rstrip, field.member("rstrip").boolean(false));
  NANOCP_ASSIGN_OR_RETURN(token.normalized, field.member("normalized").boolean(!token.special));
  return token;
}

Status parse_added_tokens(const JsonField& field, IdOfToken ids, TokenizerSpec& spec) {
  if (field.is_null()) return ok_status();
  NANOCP_RETURN_IF_ERROR(field.expect_array());
  std::unordered_map<TokenId, std::string> content_of;
  for (size_t i = 0; i < field.value().size(); ++i) {
    const JsonField entry = field.element(i);
    NANOCP_ASSIGN_OR_RETURN(AddedToken token, parse_added_token(entry));
    const auto index = static_cast<size_t>(token.id);
    std::string& content = content_of[token.id];
    if (content.empty() && index < spec.vocab.size()) content = spec.vocab[index];
    if (!content.empty() && content != token.content) {
      return entry.member("id").invalid("is " + std::to_string(token.id) +
                                        ", which already is the token " + shown(content));
    }
    const auto [known, inserted] = ids.try_emplace(token.content, token.id);
    if (!inserted && known->second != token.id) {
      return entry.member("content").invalid(
          "is " + shown(token.content) + ", which already has id " + std::to_string(known->second));
    }
    content = token.content;
    spec.added_tokens.push_back(std::move(token));
  }
  return ok_status();
}

// The alphabet must be the same on the way in and out.
Status check_alphabet(const JsonField& root, const TokenizerSpec& spec) {
  const JsonField fallback = root.member("model").member("byte_fallback");
  NANOCP_ASSIGN_OR_RETURN(const bool falls_back, fallback.boolean(false));
  if (falls_back && spec.decoder.byte_level) {
    return fallback.unsupported("is not supported with a ByteLevel decoder");
  }
  if (!falls_back && !spec.decoder.byte_level) {
    return fallback.unsupported("must be true with this decoder");
  }
  return ok_status();
}

// Whether one of the steps of the pre-tokenizer is ByteLevel.
bool has_byte_level(const nlohmann::json& component) {
  if (!component.is_object()) return false;
  const auto type = component.find("type");
  if (type != component.end() && *type == "ByteLevel") return true;
  const auto steps = component.find("pretokenizers");
  if (steps == component.end() || !steps->is_array()) return false;
  return std::any_of(steps->begin(), steps->end(), [](const nlohmann::json& step) {
    return step.is_object() && step.contains("type") && step["type"] == "ByteLevel";
  });
}

Status parse_components(const JsonField& root, TokenizerSpec& spec) {
  NANOCP_RETURN_IF_ERROR(root.expect_object());
  NANOCP_RETURN_IF_ERROR(parse_normalizer(root.member("normalizer"), spec.normalizer));
  NANOCP_RETURN_IF_ERROR(parse_pre_tokenizer(root.member("pre_tokenizer"), spec.pre_tokenizer));
  NANOCP_RETURN_IF_ERROR(parse_decoder(root.member("decoder"), spec.decoder));
  NANOCP_RETURN_IF_ERROR(parse_post_processor(root.member("post_processor"), spec));
  NANOCP_RETURN_IF_ERROR(expect_type(root.member("model"), "BPE"));
  const JsonField pre_tokenizer = root.member("pre_tokenizer");
  if (has_byte_level(pre_tokenizer.value()) != spec.decoder.byte_level) {
    return pre_tokenizer.unsupported(
        spec.decoder.byte_level ? "must have a ByteLevel step, as the decoder is ByteLevel"
                                : "must have no ByteLevel step, as the decoder is not ByteLevel");
  }
  return check_alphabet(root, spec);
}

}  // namespace

Result<TokenizerSpec> parse_tokenizer(std::string_view json_text, const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document, parse_json(json_text, name));
  const JsonField root(document, name);
  TokenizerSpec spec;
  NANOCP_RETURN_IF_ERROR(parse_components(root, spec));
  const JsonField model = root.member("model");
  NANOCP_RETURN_IF_ERROR(check_model_options(model));
  NANOCP_ASSIGN_OR_RETURN(spec.ignore_merges, model.member("ignore_merges").boolean(false));
  IdOfToken ids;
  NANOCP_RETURN_IF_ERROR(parse_vocab(model.member("vocab"), spec, ids));
  NANOCP_RETURN_IF_ERROR(find_byte_tokens(model.member("vocab"), ids, spec));
  NANOCP_RETURN_IF_ERROR(parse_merges(model.member("merges"), ids, spec));
  NANOCP_RETURN_IF_ERROR(parse_added_tokens(root.member("added_tokens"), std::move(ids), spec));
  return spec;
}

}  // namespace nanocp::text
