// The fields that ask for an answer of a certain form: response_format, and those of vLLM. Pure
// functions over a parsed body.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "api/body_reader.h"
#include "api/model_context.h"
#include "grammar/structured_output.h"

namespace nanocp::api {

struct WantedFormat {
  std::string name;  // of the field, for messages
  grammar::ResponseFormat format;
};

// None if the body asks for none. Complains about more than one.
std::optional<WantedFormat> read_wanted_format(BodyReader& body, const ModelContext& context);

// The rule on tokens; the error says what in the format is wrong or not supported.
ApiResult<std::shared_ptr<const request::TokenConstraint>> compile(const WantedFormat& wanted,
                                                                   const ModelContext& context);

}  // namespace nanocp::api
