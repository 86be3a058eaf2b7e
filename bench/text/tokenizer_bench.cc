// Speed of Tokenizer::encode and of streamed decoding on one thread. compare.py runs it in turn
// with the PyPI package `tokenizers` on the same pieces of text. Usage: tokenizer_bench
// [TOKENIZER_JSON] [TEXT_FILE] [PIECE_BYTES] [REPEATS]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "text/detokenizer.h"
#include "text/text_file.h"
#include "text/tokenizer.h"

namespace {

namespace text = nanocp::text;
using nanocp::TokenId;
// Processor time: the machine may be busy with others.
double seconds_since(std::clock_t start) {
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

// Prompts of about `piece_bytes`, cut at line ends.
std::vector<std::string> pieces_of(const std::string& text, size_t piece_bytes) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find('\n', std::min(begin + piece_bytes, text.size()));
    end = end == std::string::npos ? text.size() : end + 1;
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

int run(const char* tokenizer_file, const char* text_file, size_t piece_bytes, int repeats) {
  const auto load_start = std::clock();
  const auto tokenizer = text::Tokenizer::from_file(tokenizer_file);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "error: %s\n", tokenizer.error().message.c_str());
    return 1;
  }
  const double load_s = seconds_since(load_start);
  const auto content = text::read_text_file(text_file, int64_t{1} << 30);
  if (!content.ok()) {
    std::fprintf(stderr, "error: %s\n", content.error().message.c_str());
    return 1;
  }
  const std::vector<std::string> pieces = pieces_of(content.value(), piece_bytes);
  std::vector<double> encode_s;
  std::vector<double> decode_s;
  size_t num_tokens = 0;
  size_t num_bytes = 0;
  uint32_t checksum = 0;
  for (int i = 0; i < repeats; ++i) {
    std::vector<std::vector<TokenId>> ids;
    num_tokens = 0;
    auto start = std::clock();
    for (const std::string& piece : pieces) {
      ids.push_back(tokenizer.value().encode(piece, true));
      num_tokens += ids.back().size();
    }
    encode_s.push_back(seconds_since(start));
    checksum = 0;
    for (const auto& tokens : ids) {
      for (const TokenId id : tokens) checksum = checksum * 31 + static_cast<uint32_t>(id);
    }
    num_bytes = 0;
    start = std::clock();
    for (const std::vector<TokenId>& tokens : ids) {
      text::Detokenizer detokenizer(tokenizer.value(), false);
      for (const TokenId token : tokens) num_bytes += detokenizer.push(token).size();
      num_bytes += detokenizer.flush().size();
    }
    decode_s.push_back(seconds_since(start));
  }
  std::sort(encode_s.begin(), encode_s.end());
  std::sort(decode_s.begin(), decode_s.end());
  const auto middle = static_cast<size_t>(repeats) / 2;
  const auto megabytes = static_cast<double>(content.value().size()) / 1e6;
  std::printf(
      "{\"load_s\": %.3f, \"num_tokens\": %zu, \"num_bytes\": %zu, \"checksum\": %u, "
      "\"encode_s_best\": %.4f, \"encode_s\": %.4f, \"encode_mb_per_s\": %.2f, "
      "\"stream_mtokens_per_s\": %.2f}\n",
      load_s, num_tokens, num_bytes, checksum, encode_s.front(), encode_s[middle],
      megabytes / encode_s[middle], static_cast<double>(num_tokens) / 1e6 / decode_s[middle]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* tokenizer = argc > 1 ? argv[1] : "tests/fixtures/tiny_chat/tokenizer.json";
  const char* text = argc > 2 ? argv[2] : "CONTRIBUTING.md";
  const long piece_bytes = argc > 3 ? std::strtol(argv[3], nullptr, 10) : 16384;
  const long repeats = argc > 4 ? std::strtol(argv[4], nullptr, 10) : 5;
  if (piece_bytes < 1 || repeats < 1 || repeats > 1000) {
    std::fprintf(stderr, "usage: %s [TOKENIZER_JSON] [TEXT_FILE] [PIECE_BYTES] [REPEATS]\n",
                 argv[0]);
    return 2;
  }
  return run(tokenizer, text, static_cast<size_t>(piece_bytes), static_cast<int>(repeats));
}
