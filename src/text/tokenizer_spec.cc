#include "text/tokenizer_spec.h"

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

#include "text/byte_level.h"
#include "text/json_field.h"

namespace nanocp::text {
namespace {

// Far above any published vocabulary; bounds the memory that a bad id can ask for.
constexpr int64_t kTokenIdMax = (int64_t{1} << 22) - 1;
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

Status parse_pre_tokenizer(const JsonField& field, TokenizerSpec& spec) {
  NANOCP_RETURN_IF_ERROR(expect_type(field, "ByteLevel"));
  NANOCP_ASSIGN_OR_RETURN(const bool use_regex, field.member("use_regex").boolean(true));
  NANOCP_ASSIGN_OR_RETURN(spec.add_prefix_space, field.member("add_prefix_space").boolean(false));
  spec.split = use_regex ? SplitPattern::kGpt2 : SplitPattern::kNone;
  return ok_status();
}

// A post-processor may stay if it leaves a single text as it is.
Status check_post_processor(const JsonField& field) {
  if (field.is_null()) return ok_status();
  NANOCP_RETURN_IF_ERROR(field.expect_object());
  NANOCP_ASSIGN_OR_RETURN(const std::string type, field.member("type").string());
  if (type == "ByteLevel") return ok_status();
  if (type != "TemplateProcessing") {
    return field.unsupported("of type " + shown(type) +
                             " is not supported; supported: ByteLevel, TemplateProcessing");
  }
  const JsonField single = field.member("single");
  NANOCP_RETURN_IF_ERROR(single.expect_array());
  for (size_t i = 0; i < single.value().size(); ++i) {
    const JsonField part = single.element(i);
    NANOCP_RETURN_IF_ERROR(part.expect_object());
    if (!part.value().contains("Sequence")) {
      return part.unsupported("adds a special token, which is not supported");
    }
  }
  if (single.value().size() != 1) return single.invalid("must contain the text once");
  return ok_status();
}

Status check_components(const JsonField& root) {
  NANOCP_RETURN_IF_ERROR(root.expect_object());
  NANOCP_RETURN_IF_ERROR(expect_null(root.member("normalizer")));
  NANOCP_RETURN_IF_ERROR(expect_type(root.member("decoder"), "ByteLevel"));
  NANOCP_RETURN_IF_ERROR(check_post_processor(root.member("post_processor")));
  return expect_type(root.member("model"), "BPE");
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
  NANOCP_ASSIGN_OR_RETURN(const bool byte_fallback, model.member("byte_fallback").boolean(false));
  if (byte_fallback) return model.member("byte_fallback").unsupported("is not supported");
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

Status find_byte_tokens(const JsonField& vocab, const IdOfToken& ids, TokenizerSpec& spec) {
  for (size_t byte = 0; byte < spec.byte_tokens.size(); ++byte) {
    const std::string& character = byte_character(static_cast<uint8_t>(byte));
    const auto found = ids.find(character);
    if (found == ids.end()) {
      return vocab.invalid("has no token " + shown(character) + " for byte " +
                           std::to_string(byte) + ", so it is not byte-level");
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

}  // namespace

Result<TokenizerSpec> parse_tokenizer(std::string_view json_text, const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document, parse_json(json_text, name));
  const JsonField root(document, name);
  NANOCP_RETURN_IF_ERROR(check_components(root));
  TokenizerSpec spec;
  NANOCP_RETURN_IF_ERROR(parse_pre_tokenizer(root.member("pre_tokenizer"), spec));
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
