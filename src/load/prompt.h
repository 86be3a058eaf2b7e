// Prompts as pieces of JSON that go into request bodies as they are. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sim/workload.h"

namespace nanocp::load {

enum class Api {
  kCompletions,  // /v1/completions: a prompt is a string or a list of token ids
  kChat,         // /v1/chat/completions: a list of messages
};

class PromptSource {
 public:
  virtual ~PromptSource() = default;
  // The value of "prompt" or "messages" of request `index`. May set the lengths where the source
  // knows better than the plan.
  virtual std::string make(int64_t index, sim::Arrival& lengths) const = 0;
};

// So many random ids, each from [low, high].
struct TokenIdRange {
  int32_t low = 0;
  int32_t high = 0;
};
std::unique_ptr<PromptSource> random_ids(TokenIdRange range, uint64_t seed);

// Random common English words. How many make a given number of tokens depends on the tokenizer.
struct TextShape {
  double tokens_per_word = 1.0;
  double tokens_around = 0.0;  // of the chat template
};
std::unique_ptr<PromptSource> random_text(Api api, TextShape shape, uint64_t seed);
// A prompt of exactly so many words, to measure a tokenizer with.
std::string word_prompt(Api api, int64_t num_words, uint64_t seed);

// Lines of a JSONL file, in turn: {"prompt": TEXT or IDS} or {"messages": [...]}, and perhaps
// "max_tokens". `name` is for errors, which give the line.
Result<std::unique_ptr<PromptSource>> parse_prompts(std::string_view text, std::string_view name,
                                                    Api api);

}  // namespace nanocp::load
