// Parts of an answer as JSON, appended to a string. Pure functions.
#pragma once

#include <string>

#include "api/choice.h"
#include "api/output_parser.h"

namespace nanocp::api {

struct Usage {
  int64_t num_prompt_tokens = 0;  // each prompt once
  int64_t num_output_tokens = 0;  // of all choices
};

// {"content":...}, of a chunk; {} if there is nothing.
void append_delta(const OutputDelta& delta, std::string& out);

// ,"message":{...}
void append_message(const Choice& choice, std::string& out);

// ,"finish_reason":...,"stop_reason":...
void append_end(const Choice& choice, std::string& out);

void append_usage(const Usage& usage, std::string& out);

}  // namespace nanocp::api
