// How much a request body may ask for. Plain data; what is beyond is refused with the numbers.
#pragma once

#include <cstdint>

#include "text/jinja/limits.h"

namespace nanocp::api {

struct Limits {
  int64_t prompt_bytes_max = int64_t{16} << 20;  // text of all prompts or messages together
  int32_t num_prompts_max = 2048;                // of /v1/completions
  int32_t num_choices_max = 4096;                // prompts x n
  int64_t num_prompt_tokens_max = 1 << 26;       // of all choices together
  int32_t n_max = 128;
  int32_t num_stop_max = 64;
  int32_t stop_bytes_max = 1024;  // of one stop string
  int32_t num_stop_token_ids_max = 1024;
  int32_t num_logprobs_max = 20;
  int32_t num_logit_bias_max = 1024;
  int32_t num_messages_max = 16384;
  int32_t num_tools_max = 1024;
  int32_t schema_bytes_max = 1 << 18;  // of response_format and other constraints
  int32_t value_bytes_max = 1 << 20;   // of tools and of chat_template_kwargs, each
  text::jinja::Limits chat_template;   // of one rendering
};

}  // namespace nanocp::api
