#include "load/prompt.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/random.h"

namespace nanocp::load {
namespace {

using nlohmann::json;

constexpr int64_t kTokensMax = 100'000'000;

// Short and common: most are one token of any English vocabulary.
constexpr std::array<std::string_view, 128> kWords = {
    "the",   "of",    "and",   "to",     "in",   "is",    "that",  "for",   "was",   "on",
    "are",   "with",  "as",    "his",    "they", "at",    "be",    "this",  "have",  "from",
    "or",    "one",   "had",   "by",     "word", "but",   "not",   "what",  "all",   "were",
    "we",    "when",  "your",  "can",    "said", "there", "use",   "each",  "which", "she",
    "do",    "how",   "their", "if",     "will", "up",    "other", "about", "out",   "many",
    "then",  "them",  "these", "so",     "some", "her",   "would", "make",  "like",  "him",
    "into",  "time",  "has",   "look",   "two",  "more",  "write", "go",    "see",   "number",
    "no",    "way",   "could", "people", "my",   "than",  "first", "water", "been",  "call",
    "who",   "oil",   "its",   "now",    "find", "long",  "down",  "day",   "did",   "get",
    "come",  "made",  "may",   "part",   "over", "new",   "sound", "take",  "only",  "little",
    "work",  "know",  "place", "year",   "live", "me",    "back",  "give",  "most",  "very",
    "after", "thing", "our",   "just",   "name", "good",  "man",   "think", "say",   "great",
    "where", "help",  "much",  "before", "line", "right", "too",   "mean"};

Random generator_of(uint64_t seed, int64_t index) {
  return Random(counter_random(seed, static_cast<uint64_t>(index)));
}

// JSON that needs no escapes: only letters and spaces are in it.
std::string words_json(Api api, int64_t num_words, Random random) {
  const std::string_view begin = api == Api::kChat ? R"([{"role":"user","content":")" : R"(")";
  const std::string_view end = api == Api::kChat ? R"("}])" : R"(")";
  std::string text(begin);
  for (int64_t i = 0; i < num_words; ++i) {
    if (i > 0) text += ' ';
    text += kWords[random.below(kWords.size())];
  }
  return text.append(end);
}

class RandomIds final : public PromptSource {
 public:
  RandomIds(TokenIdRange range, uint64_t seed) : range_(range), seed_(seed) {}

  std::string make(int64_t index, sim::Arrival& lengths) const override {
    Random random = generator_of(seed_, index);
    std::string text = "[";
    std::array<char, 16> digits{};
    for (int64_t i = 0; i < lengths.num_prompt_tokens; ++i) {
      if (i > 0) text += ',';
      const auto end = std::to_chars(digits.data(), digits.data() + digits.size(),
                                     random.between(range_.low, range_.high));
      text.append(digits.data(), end.ptr);
    }
    return text += ']';
  }

 private:
  TokenIdRange range_;
  uint64_t seed_;
};

class RandomText final : public PromptSource {
 public:
  RandomText(Api api, TextShape shape, uint64_t seed) : api_(api), shape_(shape), seed_(seed) {}

  std::string make(int64_t index, sim::Arrival& lengths) const override {
    const double wanted = static_cast<double>(lengths.num_prompt_tokens) - shape_.tokens_around;
    const auto num_words = std::max<int64_t>(1, std::llround(wanted / shape_.tokens_per_word));
    return words_json(api_, num_words, generator_of(seed_, index));
  }

 private:
  Api api_;
  TextShape shape_;
  uint64_t seed_;
};

struct FilePrompt {
  std::string text;               // JSON
  int64_t num_prompt_tokens = 0;  // 0: not known
  int64_t num_output_tokens = 0;  // 0: as planned
};

class FilePrompts final : public PromptSource {
 public:
  explicit FilePrompts(std::vector<FilePrompt> prompts) : prompts_(std::move(prompts)) {}

  std::string make(int64_t index, sim::Arrival& lengths) const override {
    const FilePrompt& prompt = prompts_[static_cast<size_t>(index) % prompts_.size()];
    lengths.num_prompt_tokens = prompt.num_prompt_tokens;
    if (prompt.num_output_tokens > 0) lengths.num_output_tokens = prompt.num_output_tokens;
    return prompt.text;
  }

 private:
  std::vector<FilePrompt> prompts_;
};

bool is_id(const json& value) {
  return value.is_number_integer() && value.get<int64_t>() >= 0;
}

// What is wrong with the line, or nothing.
std::string read_prompt(const json& line, Api api, FilePrompt& prompt) {
  if (!line.is_object()) return "is no JSON object";
  const auto given = line.find("prompt");
  const auto messages = line.find("messages");
  if (messages != line.end()) {
    if (api != Api::kChat) return "has messages, which need --endpoint chat";
    if (!messages->is_array() || messages->empty()) return "has messages that are no list of some";
    prompt.text = messages->dump();
  } else if (given != line.end() && given->is_string()) {
    prompt.text = api == Api::kChat ? json::array({{{"role", "user"}, {"content", *given}}}).dump()
                                    : given->dump();
  } else if (given != line.end() && given->is_array() && !given->empty() &&
             std::all_of(given->begin(), given->end(), is_id)) {
    if (api == Api::kChat) return "has token ids, which need --endpoint completions";
    prompt.text = given->dump();
    prompt.num_prompt_tokens = static_cast<int64_t>(given->size());
  } else {
    return "has no prompt (a text, or token ids) and no messages";
  }
  const auto limit = line.find("max_tokens");
  if (limit == line.end()) return "";
  const bool is_sane =
      is_id(*limit) && limit->get<int64_t>() >= 1 && limit->get<int64_t>() <= kTokensMax;
  if (!is_sane) return "has a max_tokens that is no number of tokens";
  prompt.num_output_tokens = limit->get<int64_t>();
  return "";
}

}  // namespace

std::unique_ptr<PromptSource> random_ids(TokenIdRange range, uint64_t seed) {
  return std::make_unique<RandomIds>(range, seed);
}

std::unique_ptr<PromptSource> random_text(Api api, TextShape shape, uint64_t seed) {
  return std::make_unique<RandomText>(api, shape, seed);
}

std::string word_prompt(Api api, int64_t num_words, uint64_t seed) {
  return words_json(api, num_words, Random(seed));
}

Result<std::unique_ptr<PromptSource>> parse_prompts(std::string_view text, std::string_view name,
                                                    Api api) {
  std::vector<FilePrompt> prompts;
  int64_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    FilePrompt prompt;
    const std::string fault = read_prompt(json::parse(line, nullptr, false), api, prompt);
    if (!fault.empty()) {
      std::string message(name);
      message.append(" line ").append(std::to_string(line_number)).append(": ").append(fault);
      return invalid_argument(std::move(message));
    }
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) return invalid_argument(std::string(name) + ": no prompt in it");
  return std::unique_ptr<PromptSource>(std::make_unique<FilePrompts>(std::move(prompts)));
}

}  // namespace nanocp::load
