// tokenizer.json from nobody knows where: parsing it never crashes, and what it accepts keeps all
// bytes of any text.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

using nanocp::TokenId;
using nanocp::text::Detokenizer;
using nanocp::text::Tokenizer;
using nlohmann::json;

// The JSON library patches and prints recursively.
constexpr size_t kPatchBytesMax = 4096;

void check_round_trip(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<TokenId> tokens = tokenizer.encode(text, false);
  Detokenizer detokenizer(tokenizer, false);
  std::string streamed;
  for (const TokenId token : tokens) {
    NANOCP_CHECK(token >= 0 && token < tokenizer.vocab_size());
    streamed += detokenizer.push(token);
  }
  streamed += detokenizer.flush();
  NANOCP_CHECK(streamed == tokenizer.decode(tokens, false));
}

// A byte-level vocabulary with a few merges and one special token.
json small_document() {
  json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[nanocp::text::byte_character(static_cast<uint8_t>(byte))] = byte;
  }
  vocab["aa"] = 256;
  vocab["aaa"] = 257;
  vocab["\u0120a"] = 258;
  return {{"added_tokens", {{{"id", 259}, {"content", "<|end|>"}, {"special", true}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a a", "aa a", "\u0120 a"}}}}};
}

void check_document(std::string_view document, std::string_view text) {
  const auto parsed = Tokenizer::from_json(document, "fuzz");
  if (parsed.ok()) {
    check_round_trip(parsed.value(), text);
  } else {
    NANOCP_CHECK(parsed.error().message.find('\n') == std::string::npos);
  }
}

}  // namespace

// The input is a tokenizer.json, a JSON merge patch of a good one, and a text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  static const json kSmall = small_document();
  static const auto kTokenizer = Tokenizer::from_json(kSmall.dump(), "small");

  check_document(input, input);
  if (size < kPatchBytesMax) {
    const json patch = json::parse(input, nullptr, false);
    if (patch.is_object()) {
      json document = kSmall;
      document.merge_patch(patch);
      check_document(document.dump(), input);
    }
  }
  std::string bytes;
  for (const TokenId token : kTokenizer.value().encode(input, true)) {
    bytes += kTokenizer.value().token_bytes(token);
  }
  NANOCP_CHECK(bytes == input);
  check_round_trip(kTokenizer.value(), input);
  return 0;
}
