// What must be known of a server before a load can be made for it. Blocks; any thread.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "http_client/client.h"
#include "load/prompt.h"
#include "load/target.h"

namespace nanocp::load {

// The first model that the server lists. Errors say to name one.
Result<std::string> first_model(const http_client::Options& client, const Target& target);

// Whether the server takes a prompt of token ids; otherwise what it says instead of an answer.
struct IdsAnswer {
  bool are_taken = false;
  std::string refusal = {};
};
// Fails where there is no answer, or one that does not depend on the prompt: no such model, no
// access.
Result<IdsAnswer> try_ids(const http_client::Options& client, const Target& target,
                          TokenIdRange range);

// How many tokens the words of random_text make there, from the usage of two short requests. None:
// the server does not report usage.
Result<std::optional<TextShape>> measure_text(const http_client::Options& client,
                                              const Target& target, Api api);

}  // namespace nanocp::load
