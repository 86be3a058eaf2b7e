// A small served model for tests of this folder: the bundled tokenizer and template.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "api/model_context.h"

namespace nanocp::api {

inline const ModelContext& test_context() {
  static const text::Tokenizer kTokenizer =
      text::Tokenizer::from_file("tests/fixtures/tiny_chat/tokenizer.json").value();
  static const text::ChatTemplate kTemplate =
      text::ChatTemplate::load("tests/fixtures/tiny_chat").value();
  static const ModelContext kContext = {.served_names = {"tiny", "alias"},
                                        .tokenizer = &kTokenizer,
                                        .chat_template = &kTemplate,
                                        .max_model_len = 256,
                                        .vocab_size = 512,
                                        .eos_token_ids = {510},
                                        .created_s = 1700000000,
                                        .defaults = {},
                                        .limits = {},
                                        .output_format = {},
                                        .compile_format = {}};
  return kContext;
}

// `text` with ' for ", to be read more easily.
inline std::string json(std::string text) {
  for (char& c : text) {
    if (c == '\'') c = '"';
  }
  return text;
}

}  // namespace nanocp::api
