#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/random.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

using nlohmann::json;

constexpr const char* kTokenizerFile = "tests/fixtures/tiny_chat/tokenizer.json";

json read_json(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return json::parse(file);
}

// The bundled tokenizer changed by a JSON merge patch.
Result<Tokenizer> patched_tokenizer(const json& patch) {
  json document = read_json(kTokenizerFile);
  document.merge_patch(patch);
  return Tokenizer::from_json(document.dump(), "tokenizer.json");
}

const Tokenizer& bundled() {
  static const Tokenizer kTokenizer = Tokenizer::from_file(kTokenizerFile).value();
  return kTokenizer;
}

std::string valid_utf8(std::string_view bytes) {
  std::string text;
  append_valid_utf8(bytes, true, text);
  return text;
}

std::string all_bytes(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  std::string bytes;
  for (const TokenId token : tokens) bytes.append(tokenizer.token_bytes(token));
  return bytes;
}

TEST(Tokenizer, EqualsTheReferenceLibrary) {
  const json golden = read_json("src/text/testdata/tokenizer_golden.json");
  int num_cases = 0;
  for (const json& variant : golden["variants"]) {
    const auto tokenizer = variant.contains("document")
                               ? Tokenizer::from_json(variant["document"].dump(), "tokenizer.json")
                               : patched_tokenizer(variant["patch"]);
    ASSERT_TRUE(tokenizer.ok()) << variant["name"] << ": " << tokenizer.error().message;
    for (const json& test : variant["cases"]) {
      SCOPED_TRACE(variant["name"].dump() + " " + test["text"].dump());
      const auto text = test["text"].get<std::string>();
      const auto ids = test["ids"].get<std::vector<TokenId>>();
      EXPECT_EQ(tokenizer.value().encode(text, test["allow_special"].get<bool>()), ids);
      EXPECT_EQ(tokenizer.value().decode(ids, false), test["decoded"].get<std::string>());
      EXPECT_EQ(tokenizer.value().decode(ids, true), test["decoded_plain"].get<std::string>());
      ++num_cases;
    }
  }
  EXPECT_GE(num_cases, 800);
}

TEST(Tokenizer, KnowsItsVocabulary) {
  EXPECT_EQ(bundled().vocab_size(), 512);
  EXPECT_EQ(bundled().token_id("<|im_end|>"), 510);
  EXPECT_EQ(bundled().token_id("!"), 0);
  EXPECT_FALSE(bundled().token_id("<|nothing|>").has_value());
  EXPECT_TRUE(bundled().is_special(510));
  EXPECT_FALSE(bundled().is_special(0));
  EXPECT_FALSE(bundled().is_special(-1));
  EXPECT_EQ(bundled().token_bytes(512), "");
  EXPECT_EQ(bundled().token_bytes(-7), "");
}

TEST(Tokenizer, TakesSpecialTokensInTextOnlyWhenAllowed) {
  const std::string text = "a<|im_end|>";
  EXPECT_EQ(bundled().encode(text, true), (std::vector<TokenId>{64, 510}));
  const std::vector<TokenId> forged = bundled().encode(text, false);
  EXPECT_EQ(std::count(forged.begin(), forged.end(), 510), 0);
  EXPECT_EQ(bundled().decode(forged, true), text);
}

TEST(Tokenizer, KeepsRandomBytes) {
  Random random(7);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    const int64_t length = random.between(0, 80);
    for (int64_t k = 0; k < length; ++k) text.push_back(static_cast<char>(random.below(256)));
    const std::vector<TokenId> tokens = bundled().encode(text, false);
    ASSERT_EQ(all_bytes(bundled(), tokens), text);
    ASSERT_EQ(bundled().decode(tokens, false), valid_utf8(text));
  }
}

TEST(Tokenizer, KeepsRandomUnicode) {
  Random random(8);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    const int64_t length = random.between(0, 40);
    for (int64_t k = 0; k < length; ++k) {
      auto code_point =
          static_cast<char32_t>(random.below(random.below(2) == 0 ? 0x3100 : 0x110000));
      if (code_point >= 0xd800 && code_point < 0xe000) code_point = ' ';
      append_utf8(code_point, text);
    }
    ASSERT_EQ(bundled().decode(bundled().encode(text, true), false), text);
  }
}

TEST(Tokenizer, AddsSpecialTokensWhenAsked) {
  const json golden = read_json("src/text/testdata/tokenizer_golden.json");
  for (const json& variant : golden["variants"]) {
    if (variant["name"] != "byte_fallback") continue;
    const auto tokenizer = Tokenizer::from_json(variant["document"].dump(), "t");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    const auto plain = tokenizer.value().encode("hello", {.add_special = false});
    auto with_start = plain;
    with_start.insert(with_start.begin(), 1);
    EXPECT_EQ(tokenizer.value().encode("hello", {.add_special = true}), with_start);
    EXPECT_EQ(tokenizer.value().decode(with_start, true), "hello");
    return;
  }
  FAIL() << "no variant byte_fallback";
}

TEST(Tokenizer, NormalisesALongRunOfMarksInLinearithmicTime) {
  const auto tokenizer = patched_tokenizer({{"normalizer", {{"type", "NFC"}}}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  std::string marks = "a";
  while (marks.size() < (1U << 20)) marks += "\u0301\u0323";  // the second one goes before
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(tokenizer.value().encode(marks, true).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Tokenizer, SplitsHostileTextInBoundedTime) {
  const std::string pattern =
      read_json("src/text/testdata/tokenizer_golden.json")["variants"][6]["patch"]["pre_tokenizer"]
                                                          ["pretokenizers"][0]["pattern"]["Regex"];
  const auto regex = SplitRegex::compile(pattern);
  ASSERT_TRUE(regex.ok()) << regex.error().message;
  // The second is no published pattern: it needs exponential time on what does not match.
  const auto hostile = SplitRegex::compile("(?:a+)+b");
  ASSERT_TRUE(hostile.ok()) << hostile.error().message;
  SplitScratch scratch;
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& text : {std::string(1 << 20, ' ') + "x", std::string(1 << 20, 'a'),
                                  std::string(1 << 20, '\n'), std::string(1 << 20, '7')}) {
    for (const SplitRegex* one : {&regex.value(), &hostile.value()}) {
      std::vector<std::string_view> pieces;
      one->split(text, true, pieces, scratch);
      size_t size = 0;
      for (const std::string_view piece : pieces) size += piece.size();
      EXPECT_EQ(size, text.size());
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Tokenizer, DecodesUnknownIdsToNothing) {
  const std::vector<TokenId> tokens = {64, 100000, -1, 65};
  EXPECT_EQ(bundled().decode(tokens, false), "ab");
}

TEST(Tokenizer, TakesAMegabyteWithoutSpacesInLinearithmicTime) {
  const auto start = std::chrono::steady_clock::now();
  std::string mixed;
  Random random(9);
  while (mixed.size() < (1U << 20)) mixed.push_back(static_cast<char>('a' + random.below(26)));
  EXPECT_EQ(all_bytes(bundled(), bundled().encode(mixed, true)), mixed);
  const std::string same(1 << 20, 's');
  EXPECT_EQ(all_bytes(bundled(), bundled().encode(same, true)), same);
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(all_bytes(bundled(), bundled().encode(spaces, true)), spaces);
  const std::string almost_special = std::string(1 << 20, '<');
  EXPECT_EQ(all_bytes(bundled(), bundled().encode(almost_special, true)), almost_special);
  // A quadratic algorithm takes hours; the bound leaves room for sanitizers.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Tokenizer, MergesTheLowestRankThenTheLeftmostPair) {
  // "aaa": (a,a) is taken from the left; then (aa,a) has a rank of its own.
  json document = read_json(kTokenizerFile);
  document["model"]["vocab"]["aa"] = 512;
  document["model"]["vocab"]["aaa"] = 513;
  document["model"]["vocab"]["ab"] = 514;
  document["model"]["merges"] = json::parse(R"([["a","b"],"a a",["aa","a"]])");
  const auto tokenizer = Tokenizer::from_json(document.dump(), "t");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const TokenId a = *tokenizer.value().token_id("a");
  EXPECT_EQ(tokenizer.value().encode("aaa", true), (std::vector<TokenId>{513}));
  EXPECT_EQ(tokenizer.value().encode("aaaa", true), (std::vector<TokenId>{512, 512}));
  EXPECT_EQ(tokenizer.value().encode("aaab", true), (std::vector<TokenId>{512, 514}));
  EXPECT_EQ(tokenizer.value().encode("aab", true), (std::vector<TokenId>{a, 514}));
}

struct BadFile {
  const char* patch;
  const char* message;
};

class BadTokenizer : public testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizer, IsRefusedByName) {
  const auto tokenizer = patched_tokenizer(json::parse(GetParam().patch));
  ASSERT_FALSE(tokenizer.ok());
  const std::string& message = tokenizer.error().message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
  EXPECT_EQ(message.rfind("tokenizer.json: ", 0), 0U) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Components, BadTokenizer,
    testing::Values(
        BadFile{R"({"normalizer": {"type": "Lowercase"}})",
                "normalizer of type 'Lowercase' is not"},
        BadFile{R"({"normalizer": 3})", "normalizer must be an object"},
        BadFile{R"({"normalizer": {"type": "Sequence", "normalizers": 1}})",
                "normalizer.normalizers must be an array"},
        BadFile{R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}]}})",
                "normalizer.normalizers[0] of type 'Strip' is not supported"},
        BadFile{R"({"normalizer": {"type": "Replace", "pattern": {"Regex": "a"}}})",
                "normalizer.pattern.Regex is not supported in a replacement"},
        BadFile{R"({"pre_tokenizer": null})", "pre_tokenizer must have a ByteLevel step"},
        BadFile{R"({"pre_tokenizer": {"type": "BertPreTokenizer"}})",
                "pre_tokenizer of type 'BertPreTokenizer' is not supported"},
        BadFile{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_"}})",
                "pre_tokenizer must have a ByteLevel step, as the decoder is ByteLevel"},
        BadFile{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": ""}})",
                "pre_tokenizer.replacement must not be empty"},
        BadFile{
            R"x({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}}})x",
            "pre_tokenizer.pattern.Regex is not a valid pattern: missing closing parenthesis"},
        BadFile{
            R"x({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "\\w+"}}})x",
            "pre_tokenizer.pattern.Regex uses '\\w', which is not supported"},
        BadFile{
            R"x({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "[a&&b]"}}})x",
            "pre_tokenizer.pattern.Regex uses '&& inside [...]', which is not supported"},
        BadFile{R"x({"pre_tokenizer": {"type": "Split", "behavior": "Contiguous"}})x",
                "pre_tokenizer.behavior 'Contiguous' is not supported"},
        BadFile{R"({"decoder": {"type": "Sequence", "decoders": []}})", "decoder has no steps"},
        BadFile{R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Strip"}]}})",
                "decoder.decoders[0] of type 'Strip' is not supported"},
        BadFile{R"({"decoder": {"type": "Fuse"}})", "pre_tokenizer must have no ByteLevel step"},
        BadFile{R"({"pre_tokenizer": {"type": 4}})", "pre_tokenizer.type must be a string"},
        BadFile{R"({"pre_tokenizer": []})", "pre_tokenizer must be an object"},
        BadFile{R"({"pre_tokenizer": {"use_regex": 1}})", "pre_tokenizer.use_regex must be true"},
        BadFile{R"({"decoder": {"type": "WordPiece"}})", "decoder of type 'WordPiece'"},
        BadFile{R"({"post_processor": {"type": "BertProcessing"}})", "post_processor of type"},
        BadFile{R"({"post_processor": {"single": [{"SpecialToken": {"id": "a"}}]}})",
                "post_processor.single[0].SpecialToken.id is 'a', which post_processor.special"},
        BadFile{R"({"post_processor": {"single": []}})", "post_processor.single must contain"}));

INSTANTIATE_TEST_SUITE_P(
    Model, BadTokenizer,
    testing::Values(
        BadFile{R"({"model": {"type": "Unigram"}})", "model of type 'Unigram'"},
        BadFile{R"({"model": 7})", "model must be an object"},
        BadFile{R"({"model": {"byte_fallback": true}})",
                "model.byte_fallback is not supported with"},
        BadFile{R"({"model": {"dropout": 0.1}})", "model.dropout must be null or 0"},
        BadFile{R"({"model": {"continuing_subword_prefix": "##"}})",
                "model.continuing_subword_prefix is not supported"},
        BadFile{R"({"model": {"vocab": []}})", "model.vocab must be an object"},
        BadFile{R"({"model": {"vocab": {"a": "1"}}})", "model.vocab entry 'a' must be an integer"},
        BadFile{R"({"model": {"vocab": {"a": 1.5}}})", "model.vocab entry 'a' must be an integer"},
        BadFile{R"({"model": {"vocab": {"a": -1}}})",
                "model.vocab entry 'a' must be between 0 and"},
        BadFile{R"({"model": {"vocab": {"a": 18446744073709551615}}})", "must be between 0 and"},
        BadFile{R"({"model": {"vocab": {"a": 4294967300}}})", "must be between 0 and"},
        BadFile{R"({"model": {"vocab": {"": 600}}})", "model.vocab has an empty token"},
        BadFile{R"({"model": {"vocab": {"zz": 0}}})", "model.vocab gives id 0 to both"},
        BadFile{R"({"model": {"vocab": {"!": null}}})", "has no token '!' for byte 33"},
        BadFile{R"({"model": {"merges": {}}})", "model.merges must be an array"},
        BadFile{R"({"model": {"merges": ["ab"]}})", "model.merges[0] must be two tokens"},
        BadFile{R"({"model": {"merges": ["a b c"]}})", "model.merges[0] must be two tokens"},
        BadFile{R"({"model": {"merges": [["a"]]}})", "model.merges[0] must be two tokens"},
        BadFile{R"({"model": {"merges": [["a", 1]]}})", "model.merges[0] must be two tokens"},
        BadFile{R"({"model": {"merges": ["s e", "zzz e"]}})", "model.merges[1] names token 'zzz'"},
        BadFile{R"({"model": {"merges": ["z q"]}})", "model.merges[0] names token 'zq'"},
        BadFile{R"({"added_tokens": {}})", "added_tokens must be an array"},
        BadFile{R"({"added_tokens": [1]})", "added_tokens[0] must be an object"},
        BadFile{R"({"added_tokens": [{"content": "x"}]})", "added_tokens[0].id must be an integer"},
        BadFile{R"({"added_tokens": [{"id": -2, "content": "<x>"}]})",
                "added_tokens[0].id must be"},
        BadFile{R"({"added_tokens": [{"id": 600, "content": ""}]})",
                "added_tokens[0].content must"},
        BadFile{R"({"added_tokens": [{"id": 600}]})", "added_tokens[0].content must be a string"},
        BadFile{R"({"added_tokens": [{"id": 1, "content": "<x>"}]})",
                "added_tokens[0].id is 1, which already is the token '\"'"},
        BadFile{R"({"added_tokens": [{"id": 600, "content": "a"}]})",
                "added_tokens[0].content is 'a', which already has id 64"},
        BadFile{
            R"({"added_tokens": [{"id": 600, "content": "<x>"}, {"id": 600, "content": "<y>"}]})",
            "added_tokens[1].id is 600, which already is the token '<x>'"},
        BadFile{R"({"added_tokens": [{"id": 600, "content": "<x>", "special": 2}]})",
                "added_tokens[0].special must be true or false"}));

std::string error_of(std::string_view document) {
  const auto tokenizer = Tokenizer::from_json(document, "f.json");
  return tokenizer.ok() ? "no error" : tokenizer.error().message;
}

TEST(Tokenizer, RefusesWhatIsNotJson) {
  EXPECT_EQ(error_of(""), "f.json: not valid JSON near byte 1");
  EXPECT_EQ(error_of("{\"model\": "), "f.json: not valid JSON near byte 11");
  EXPECT_EQ(error_of("[]"), "f.json: the document must be an object");
  EXPECT_EQ(error_of("{\"a\": 1e999}"), "f.json: not valid JSON (a number is out of range)");
  EXPECT_EQ(error_of(std::string(1000000, '[')), "f.json: JSON nested deeper than 64 levels");
  EXPECT_NE(error_of("{\"a\": \"\xff\"}").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("{}").find("decoder is missing"), std::string::npos);
}

TEST(Tokenizer, RefusesAMissingFile) {
  const auto missing = Tokenizer::from_file("no/such/tokenizer.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().message, "no/such/tokenizer.json: no such file");
  EXPECT_FALSE(Tokenizer::from_file("models").ok());
}

}  // namespace
}  // namespace nanocp::text
