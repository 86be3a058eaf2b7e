// One answer as far as it has come. Owned by a ResponseWriter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/generation_request.h"
#include "api/logprobs_text.h"
#include "api/output_parser.h"
#include "plan/ids.h"
#include "request/request.h"
#include "text/answer_text.h"

namespace nanocp::api {

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

struct Choice {
  Choice(const OutputOptions& output, const ModelContext& context)
      : text(*context.tokenizer, {.skip_special = output.skip_special_tokens,
                                  .shown_special = output.parser_tokens,
                                  .stop = output.stop,
                                  .include_stop = output.include_stop,
                                  .min_tokens = output.min_tokens}),
        logprobs(output.endpoint, *context.tokenizer, output.num_logprobs) {}

  // Of a single body.
  void add(const OutputDelta& delta) {
    content += delta.content;
    reasoning += delta.reasoning_content;
    for (const ToolCallDelta& call : delta.tool_calls) {
      const auto index = static_cast<size_t>(call.index);
      if (tool_calls.size() <= index) tool_calls.resize(index + 1);
      ToolCall& whole = tool_calls[index];
      whole.id += call.id;
      whole.name += call.name;
      whole.arguments += call.arguments;
    }
  }

  text::AnswerText text;
  LogprobsText logprobs;
  std::unique_ptr<OutputParser> parser;  // null: the text is content
  std::vector<TokenId> token_ids;        // since the last chunk, or all
  int64_t num_tokens = 0;
  request::FinishReason finish_reason = request::FinishReason::kNone;
  TokenId stop_token = kNoToken;  // that ended it and is none of the model's own
  // Of a single body.
  std::string content;
  std::string reasoning;
  std::vector<ToolCall> tool_calls;
};

}  // namespace nanocp::api
