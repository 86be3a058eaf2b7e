// The parts of a tokenizer.json around its model: how text is normalised, cut, put between special
// tokens and decoded. Pure functions over a parsed document.
#pragma once

#include <vector>

#include "base/result.h"
#include "text/json_field.h"
#include "text/tokenizer_spec.h"

namespace nanocp::text {

// Largest token id, far above any published vocabulary; bounds the memory that a bad id can ask
// for.
constexpr int64_t kTokenIdMax = (int64_t{1} << 22) - 1;

Status parse_normalizer(const JsonField& field, std::vector<NormalizerStep>& steps);
Status parse_pre_tokenizer(const JsonField& field, PreTokenizerSpec& spec);
Status parse_decoder(const JsonField& field, DecoderSpec& spec);
// Fills spec.prefix_tokens and spec.suffix_tokens.
Status parse_post_processor(const JsonField& field, TokenizerSpec& spec);

}  // namespace nanocp::text
