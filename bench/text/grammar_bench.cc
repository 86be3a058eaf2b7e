// Time to make masks of allowed tokens for structured output, on one thread: for a few formats,
// along a document that is of the format (as a model would write it) and along random texts, by a
// grammar that has made no mask yet and by the same one again. Usage: grammar_bench
// [TOKENIZER_JSON] [RANDOM_TOKENS]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "grammar/structured_output.h"
#include "text/tokenizer.h"

namespace {

using nanocp::Random;
using nanocp::TokenId;
using nanocp::grammar::Compiler;
using nanocp::grammar::ResponseFormat;
using nanocp::grammar::Vocabulary;

struct Case {
  const char* name;
  ResponseFormat format;
  std::string document;
};

std::vector<Case> cases() {
  using Kind = ResponseFormat::Kind;
  const std::string person = R"({"type":"object","properties":{
      "name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":130},
      "email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string"}},
      "address":{"type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"},
        "country":{"enum":["DE","FR","US","JP"]}},"required":["street","city","country"],
        "additionalProperties":false}},
      "required":["name","age","email","tags","address"],"additionalProperties":false})";
  const std::string person_text =
      R"({"name": "Ada Lovelace", "age": 36, "email": "ada@example.com", "tags": ["mathematics", )"
      R"("analytical engine", "poetical science"], "address": {"street": "12 St James's Square", )"
      R"("city": "London", "country": "DE"}})";
  const std::string tree = R"({"$defs":{"Step":{"type":"object","properties":{
      "explanation":{"type":"string","maxLength":400},"output":{"type":"string","maxLength":60},
      "children":{"type":"array","items":{"$ref":"#/$defs/Step"}}},
      "required":["explanation","output","children"],"additionalProperties":false}},
      "$ref":"#/$defs/Step"})";
  const std::string tree_text =
      R"({"explanation": "First subtract seven from both sides of the equation.", "output": )"
      R"("8x = -30", "children": [{"explanation": "Then divide both sides by eight.", "output": )"
      R"("x = -3.75", "children": []}]})";
  return {{"json_object", {.kind = Kind::kJsonObject}, person_text},
          {"flat schema", {.kind = Kind::kJsonSchema, .text = person}, person_text},
          {"recursive schema with lengths", {.kind = Kind::kJsonSchema, .text = tree}, tree_text},
          {"choice",
           {.kind = Kind::kChoice, .choices = {"positive", "neutral", "negative"}},
           "negative"},
          {"regex",
           {.kind = Kind::kRegex, .text = "[A-Z][a-z]+( [A-Z][a-z]+)* \\d{4}"},
           "Grace Brewster Murray Hopper 1906"}};
}

// Of this thread's processor time: the machine may be busy with others.
double now_us() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

double us_since(double start_us) {
  return now_us() - start_us;
}

struct Times {
  std::vector<double> us;

  void print(const char* what) {
    if (us.empty()) return;
    std::sort(us.begin(), us.end());
    double sum = 0.0;
    for (const double value : us) sum += value;
    std::printf("  %-28s %6zu masks  mean %8.1f us  median %7.1f  p99 %8.1f  worst %8.1f\n", what,
                us.size(), sum / static_cast<double>(us.size()), us[us.size() / 2],
                us[us.size() * 99 / 100], us.back());
  }
};

class Bench {
 public:
  Bench(const nanocp::text::Tokenizer& tokenizer, std::shared_ptr<const Vocabulary> vocabulary)
      : tokenizer_(tokenizer), vocabulary_(std::move(vocabulary)) {}

  int run(const Case& measured, size_t num_random) {
    const double start = now_us();
    const auto compiled = Compiler(vocabulary_).compile(measured.format);
    if (!compiled.ok()) {
      std::fprintf(stderr, "error: %s: %s\n", measured.name, compiled.error().message.c_str());
      return 1;
    }
    std::printf("%s: compiled with its first mask in %.2f ms\n", measured.name,
                us_since(start) / 1e3);
    const std::vector<TokenId> document = tokenizer_.encode(measured.document, false);
    for (const char* what : {"document, first request", "document, second request"}) {
      if (!follow(**compiled, document, what)) return 1;
    }
    for (const char* what : {"random texts, first pass", "random texts, second pass"}) {
      wander(**compiled, num_random, what);
    }
    return 0;
  }

 private:
  bool follow(const nanocp::request::TokenConstraint& constraint,
              const std::vector<TokenId>& document, const char* what) {
    Times times;
    const auto state = constraint.start();
    for (const TokenId token : document) {
      const double start = now_us();
      const auto mask = state->allowed();
      const bool is_allowed = state->accept(token);
      times.us.push_back(us_since(start));
      if (is_allowed && nanocp::mask_allows(*mask, token)) continue;
      std::fprintf(stderr, "error: a token of the document is not allowed\n");
      return false;
    }
    times.print(what);
    return true;
  }

  // Texts of at most 200 tokens, again from the start when one is over.
  void wander(const nanocp::request::TokenConstraint& constraint, size_t num_tokens,
              const char* what) {
    Times times;
    Random random(1);
    auto state = constraint.start();
    size_t length = 0;
    for (size_t i = 0; i < num_tokens; ++i) {
      const double start = now_us();
      const auto mask = state->allowed();
      const double mask_us = us_since(start);
      const auto token = pick(*mask, random);
      const double accept_start = now_us();
      state->accept(token);
      times.us.push_back(mask_us + us_since(accept_start));
      if (++length < 200 && !vocabulary_->is_end_token(token)) continue;
      state = constraint.start();
      length = 0;
    }
    times.print(what);
  }

  static TokenId pick(const nanocp::TokenMask& mask, Random& random) {
    size_t count = 0;
    for (const uint32_t word : mask) count += static_cast<size_t>(__builtin_popcount(word));
    size_t left = count == 0 ? 0 : random.below(count);
    for (size_t i = 0; i < mask.size(); ++i) {
      const auto here = static_cast<size_t>(__builtin_popcount(mask[i]));
      if (left >= here) {
        left -= here;
        continue;
      }
      uint32_t word = mask[i];
      for (; left > 0; --left) word &= word - 1;
      return static_cast<TokenId>(i * 32 + static_cast<size_t>(__builtin_ctz(word)));
    }
    return 0;
  }

  const nanocp::text::Tokenizer& tokenizer_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
};

int run(const char* tokenizer_file, size_t num_random) {
  const auto tokenizer = nanocp::text::Tokenizer::from_file(tokenizer_file);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "error: %s\n", tokenizer.error().message.c_str());
    return 1;
  }
  const double start = now_us();
  const TokenId end = tokenizer->token_id("<|im_end|>").value_or(tokenizer->vocab_size());
  const auto vocabulary = Vocabulary::create(*tokenizer, {end});
  std::printf("vocabulary of %d tokens, %zu nodes, made in %.0f ms\n", tokenizer->vocab_size(),
              vocabulary->num_nodes(), us_since(start) / 1e3);
  Bench bench(*tokenizer, vocabulary);
  for (const Case& measured : cases()) {
    if (const int code = bench.run(measured, num_random)) return code;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* tokenizer = argc > 1 ? argv[1] : "tests/fixtures/tiny_chat/tokenizer.json";
  const long num_random = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 2000;
  if (num_random < 1 || num_random > 1'000'000) {
    std::fprintf(stderr, "usage: %s [TOKENIZER_JSON] [RANDOM_TOKENS]\n", argv[0]);
    return 2;
  }
  return run(tokenizer, static_cast<size_t>(num_random));
}
