#include "text/tokenizer_components.h"

#include <string>
#include <utility>

namespace nanocp::text {
namespace {

// Components inside components: a Sequence holds a few, never another Sequence.
constexpr size_t kStepsMax = 64;

Result<std::string> type_of(const JsonField& component) {
  NANOCP_RETURN_IF_ERROR(component.expect_object());
  return component.member("type").string();
}

Error unknown_type(const JsonField& component, const std::string& type,
                   const std::string& supported) {
  return component.unsupported("of type " + shown(type) +
                               " is not supported; supported: " + supported);
}

// The elements of a Sequence, or the component alone.
Result<std::vector<JsonField>> steps_of(const JsonField& component, const std::string& list) {
  NANOCP_ASSIGN_OR_RETURN(const std::string type, type_of(component));
  std::vector<JsonField> steps;
  if (type != "Sequence") {
    steps.push_back(component);
    return steps;
  }
  const JsonField field = component.member(list);
  NANOCP_RETURN_IF_ERROR(field.expect_array());
  if (field.value().size() > kStepsMax) return field.invalid("has more than 64 elements");
  for (size_t i = 0; i < field.value().size(); ++i) steps.push_back(field.element(i));
  return steps;
}

// {"String": "..."}: literal text.
Result<NormalizerStep> parse_replace(const JsonField& field) {
  const JsonField pattern = field.member("pattern");
  NANOCP_RETURN_IF_ERROR(pattern.expect_object());
  NormalizerStep step{.kind = NormalizerStep::Kind::kReplace, .pattern = {}, .content = {}};
  if (pattern.value().contains("Regex")) {
    return pattern.member("Regex").unsupported("is not supported in a replacement");
  }
  NANOCP_ASSIGN_OR_RETURN(step.pattern, pattern.member("String").string());
  NANOCP_ASSIGN_OR_RETURN(step.content, field.member("content").string());
  if (step.pattern.empty()) return pattern.member("String").invalid("must not be empty");
  return step;
}

Result<NormalizerStep> parse_normalizer_step(const JsonField& field) {
  using Kind = NormalizerStep::Kind;
  NANOCP_ASSIGN_OR_RETURN(const std::string type, type_of(field));
  for (const auto& [name, kind] :
       {std::pair{"NFC", Kind::kNfc}, std::pair{"NFD", Kind::kNfd}, std::pair{"NFKC", Kind::kNfkc},
        std::pair{"NFKD", Kind::kNfkd}}) {
    if (type == name) return NormalizerStep{.kind = kind, .pattern = {}, .content = {}};
  }
  if (type == "Replace") return parse_replace(field);
  if (type == "Prepend") {
    NormalizerStep step{.kind = Kind::kPrepend, .pattern = {}, .content = {}};
    NANOCP_ASSIGN_OR_RETURN(step.content, field.member("prepend").string());
    return step;
  }
  return unknown_type(field, type, "NFC, NFD, NFKC, NFKD, Prepend, Replace, a Sequence of them");
}

Status add_regex(const JsonField& field, std::string_view pattern, bool keep_gaps,
                 PreTokenizerSpec& spec) {
  auto regex = SplitRegex::compile(pattern);
  if (!regex.ok()) {
    Error error = field.invalid(regex.error().message);
    error.code = regex.error().code;
    return error;
  }
  spec.steps.emplace_back(RegexStep{std::move(regex).value(), keep_gaps});
  return ok_status();
}

// Literal text as a pattern that matches it.
std::string matching_literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || static_cast<uint8_t>(c) >= 0x80;
    if (!is_word) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

Status parse_split(const JsonField& field, PreTokenizerSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(const std::string behavior, field.member("behavior").string());
  NANOCP_ASSIGN_OR_RETURN(const bool invert, field.member("invert").boolean(false));
  const bool removes_gaps = behavior == "Removed" && invert;
  if (behavior != "Isolated" && !removes_gaps) {
    return field.member("behavior")
        .unsupported(shown(behavior) +
                     " is not supported; supported: Isolated, Removed with invert");
  }
  const JsonField pattern = field.member("pattern");
  NANOCP_RETURN_IF_ERROR(pattern.expect_object());
  if (!pattern.member("String").is_null()) {
    NANOCP_ASSIGN_OR_RETURN(const std::string text, pattern.member("String").string());
    return add_regex(pattern.member("String"), matching_literal(text), !removes_gaps, spec);
  }
  NANOCP_ASSIGN_OR_RETURN(const std::string regex, pattern.member("Regex").string());
  return add_regex(pattern.member("Regex"), regex, !removes_gaps, spec);
}

Status parse_metaspace(const JsonField& field, PreTokenizerSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(spec.space_replacement, field.member("replacement").string());
  if (spec.space_replacement.empty())
    return field.member("replacement").invalid("must not be empty");
  const JsonField scheme_field = field.member("prepend_scheme");
  std::string scheme = "always";
  if (!scheme_field.is_null()) {
    NANOCP_ASSIGN_OR_RETURN(scheme, scheme_field.string());
  } else {  // files of older versions
    NANOCP_ASSIGN_OR_RETURN(const bool prefix, field.member("add_prefix_space").boolean(true));
    if (!prefix) scheme = "never";
  }
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return scheme_field.invalid("must be always, first or never");
  }
  if (scheme != "never") spec.prefix = {spec.space_replacement, scheme == "first"};
  NANOCP_ASSIGN_OR_RETURN(const bool split, field.member("split").boolean(true));
  if (split) spec.steps.emplace_back(DelimiterStep{spec.space_replacement});
  return ok_status();
}

Status parse_byte_level(const JsonField& field, bool is_first, PreTokenizerSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(const bool use_regex, field.member("use_regex").boolean(true));
  NANOCP_ASSIGN_OR_RETURN(const bool prefix, field.member("add_prefix_space").boolean(false));
  if (prefix && !is_first) {
    return field.member("add_prefix_space").unsupported("is not supported after another step");
  }
  if (prefix) spec.prefix = {" ", false};
  if (use_regex) spec.steps.emplace_back(SplitPattern::kGpt2);
  return ok_status();
}

Status parse_pre_tokenizer_step(const JsonField& field, bool is_first, PreTokenizerSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(const std::string type, type_of(field));
  if (type == "ByteLevel") return parse_byte_level(field, is_first, spec);
  if (type == "Split") return parse_split(field, spec);
  if (type == "Digits") {
    NANOCP_ASSIGN_OR_RETURN(const bool one, field.member("individual_digits").boolean(false));
    return add_regex(field, one ? "\\p{N}" : "\\p{N}+", true, spec);
  }
  if (type == "Metaspace" && is_first) return parse_metaspace(field, spec);
  return unknown_type(field, type,
                      "ByteLevel, Split, Digits, a Sequence of them, or Metaspace first");
}

Status parse_strip(const JsonField& field, DecoderSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(const std::string content, field.member("content").string());
  if (content != " ") return field.member("content").unsupported("must be \" \"");
  NANOCP_ASSIGN_OR_RETURN(const int64_t start, field.member("start").integer(0, 16));
  NANOCP_RETURN_IF_ERROR(field.member("stop").integer(0, 0));
  spec.num_leading_spaces = static_cast<int32_t>(start);
  return ok_status();
}

Status parse_metaspace_decoder(const JsonField& field, DecoderSpec& spec) {
  PreTokenizerSpec same_fields;
  NANOCP_RETURN_IF_ERROR(parse_metaspace(field, same_fields));
  spec.byte_level = false;
  spec.first_token_without_spaces = !same_fields.prefix.text.empty();
  spec.replacements.push_back({.kind = NormalizerStep::Kind::kReplace,
                               .pattern = same_fields.space_replacement,
                               .content = " "});
  return ok_status();
}

Status parse_decoder_step(const JsonField& field, bool& is_fused, DecoderSpec& spec) {
  NANOCP_ASSIGN_OR_RETURN(const std::string type, type_of(field));
  spec.byte_level = type == "ByteLevel";
  if (type == "ByteLevel") return ok_status();
  if (type == "Metaspace") return parse_metaspace_decoder(field, spec);
  if (type == "Fuse") {
    is_fused = true;
    return ok_status();
  }
  if (type == "Strip" && is_fused) return parse_strip(field, spec);
  if (type == "ByteFallback" && !is_fused) {
    spec.byte_fallback = true;
    return ok_status();
  }
  if (type == "Replace" && !is_fused) {
    NANOCP_ASSIGN_OR_RETURN(NormalizerStep step, parse_replace(field));
    spec.replacements.push_back(std::move(step));
    return ok_status();
  }
  return unknown_type(field, type,
                      "ByteLevel, Metaspace, or a Sequence of Replace, ByteFallback, Fuse, Strip");
}

// {"SpecialToken": {"id": "<s>"}}, whose ids are in `tokens`.
Result<std::vector<TokenId>> parse_special(const JsonField& part, const JsonField& tokens) {
  const JsonField special = part.member("SpecialToken");
  NANOCP_RETURN_IF_ERROR(special.expect_object());
  NANOCP_ASSIGN_OR_RETURN(const std::string name, special.member("id").string());
  if (!tokens.value().is_object() || !tokens.value().contains(name)) {
    return special.member("id").invalid("is " + shown(name) +
                                        ", which post_processor.special_tokens does not have");
  }
  const JsonField entry = tokens.member(name);
  NANOCP_RETURN_IF_ERROR(entry.expect_object());
  const JsonField ids = entry.member("ids");
  NANOCP_RETURN_IF_ERROR(ids.expect_array());
  if (ids.value().size() > kStepsMax) return ids.invalid("has more than 64 elements");
  std::vector<TokenId> result;
  for (size_t i = 0; i < ids.value().size(); ++i) {
    NANOCP_ASSIGN_OR_RETURN(const int64_t id, ids.element(i).integer(0, kTokenIdMax));
    result.push_back(static_cast<TokenId>(id));
  }
  return result;
}

Status parse_template(const JsonField& field, TokenizerSpec& spec) {
  const JsonField single = field.member("single");
  NANOCP_RETURN_IF_ERROR(single.expect_array());
  if (single.value().size() > kStepsMax) return single.invalid("has more than 64 elements");
  int num_sequences = 0;
  for (size_t i = 0; i < single.value().size(); ++i) {
    const JsonField part = single.element(i);
    NANOCP_RETURN_IF_ERROR(part.expect_object());
    if (part.value().contains("Sequence")) {
      ++num_sequences;
      continue;
    }
    NANOCP_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                            parse_special(part, field.member("special_tokens")));
    std::vector<TokenId>& side = num_sequences == 0 ? spec.prefix_tokens : spec.suffix_tokens;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (num_sequences != 1) return single.invalid("must contain the text once");
  return ok_status();
}

}  // namespace

Status parse_normalizer(const JsonField& field, std::vector<NormalizerStep>& steps) {
  if (field.is_null()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const std::vector<JsonField> list, steps_of(field, "normalizers"));
  for (const JsonField& entry : list) {
    NANOCP_ASSIGN_OR_RETURN(NormalizerStep step, parse_normalizer_step(entry));
    steps.push_back(std::move(step));
  }
  return ok_status();
}

Status parse_pre_tokenizer(const JsonField& field, PreTokenizerSpec& spec) {
  if (field.is_null()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const std::vector<JsonField> list, steps_of(field, "pretokenizers"));
  for (size_t i = 0; i < list.size(); ++i) {
    NANOCP_RETURN_IF_ERROR(parse_pre_tokenizer_step(list[i], i == 0, spec));
  }
  return ok_status();
}

Status parse_decoder(const JsonField& field, DecoderSpec& spec) {
  if (field.is_null()) return field.unsupported("is missing");
  NANOCP_ASSIGN_OR_RETURN(const std::vector<JsonField> list, steps_of(field, "decoders"));
  if (list.empty()) return field.invalid("has no steps");
  bool is_fused = false;
  for (const JsonField& entry : list) {
    NANOCP_RETURN_IF_ERROR(parse_decoder_step(entry, is_fused, spec));
    const bool alone = spec.byte_level || spec.first_token_without_spaces;
    if (alone && list.size() > 1) return entry.unsupported("must be the only step");
  }
  return ok_status();
}

Status parse_post_processor(const JsonField& field, TokenizerSpec& spec) {
  if (field.is_null()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const std::vector<JsonField> list, steps_of(field, "processors"));
  for (const JsonField& entry : list) {
    NANOCP_ASSIGN_OR_RETURN(const std::string type, type_of(entry));
    if (type == "ByteLevel") continue;  // moves offsets only
    if (type != "TemplateProcessing") {
      return unknown_type(entry, type, "ByteLevel, TemplateProcessing, a Sequence of them");
    }
    NANOCP_RETURN_IF_ERROR(parse_template(entry, spec));
  }
  return ok_status();
}

}  // namespace nanocp::text
