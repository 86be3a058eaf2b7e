// What request bodies are read against: the served model's names, texts and limits. Built once by
// the server, immutable afterwards, so that one serves all threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/generation_config.h"
#include "api/limits.h"
#include "api/output_parser.h"
#include "base/result.h"
#include "grammar/structured_output.h"
#include "plan/ids.h"
#include "request/token_constraint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nanocp::api {

struct ModelContext {
  std::vector<std::string> served_names;              // not empty; responses say the first
  const text::Tokenizer* tokenizer = nullptr;         // not null; outlives this
  const text::ChatTemplate* chat_template = nullptr;  // null: chats are refused
  int64_t max_model_len = 0;                          // prompt and output together, above 0
  int64_t vocab_size = 0;                             // of the model
  std::vector<TokenId> eos_token_ids;
  int64_t created_s = 0;  // when the model was loaded, seconds since 1970
  SamplingDefaults defaults;
  Limits limits;
  OutputFormat output_format;  // how the model writes thoughts and tool calls
  // Structured output, as by grammar::Compiler::compile; may be called by any thread. Empty: such
  // requests are refused.
  std::function<Result<std::shared_ptr<const request::TokenConstraint>>(
      const grammar::ResponseFormat&)>
      compile_format;
};

}  // namespace nanocp::api
