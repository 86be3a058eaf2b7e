// A schema, pattern or grammar from nobody knows where: compiling never crashes, ends, and says in
// one line what is wrong; what compiles can be followed along random texts, each of which either
// goes on, ends, or says why it cannot.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/random.h"
#include "grammar/structured_output.h"
#include "grammar/test_walk.h"

// The first byte chooses what the rest is.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace grammar = nanocp::grammar;
  using Kind = grammar::ResponseFormat::Kind;
  if (size == 0 || size > 20'000) return 0;
  constexpr Kind kKinds[] = {Kind::kRegex, Kind::kGrammar};
  const std::string input(reinterpret_cast<const char*>(data), size);
  const bool is_schema = input[0] == '{';
  grammar::ResponseFormat format = {.kind = is_schema ? Kind::kJsonSchema : kKinds[data[0] % 2],
                                    .text = is_schema ? input : input.substr(1)};
  static const auto vocabulary = grammar::testing_support::small_vocabulary();
  const auto compiled = grammar::Compiler(vocabulary).compile(format);
  if (!compiled.ok()) {
    NANOCP_CHECK(compiled.error().message.find('\n') == std::string::npos);
    return 0;
  }
  nanocp::Random random(size);
  const auto walked = grammar::testing_support::random_walk(**compiled, random, 20, 60);
  NANOCP_CHECK(walked.problem.find("was sampled") == std::string::npos);
  return 0;
}
