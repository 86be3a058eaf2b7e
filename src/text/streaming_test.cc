// Detokenizer and StopMatcher: text that comes in parts.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

const Tokenizer& bundled() {
  static const Tokenizer kTokenizer =
      Tokenizer::from_file("tests/fixtures/tiny_chat/tokenizer.json").value();
  return kTokenizer;
}

bool is_valid_utf8(std::string_view text) {
  std::string valid;
  append_valid_utf8(text, true, valid);
  return valid == text;
}

std::string random_bytes(Random& random, int64_t length_max) {
  const std::string_view kParts[] = {"a",    " ",    "\xe2", "\x82",     "\xac",
                                     "\xf0", "\x9f", "\x98", "\x80",     "\xff",
                                     "\xed", "\xa0", "\xc0", "\xf4\x90", "\xe2\x82\xac"};
  std::string bytes;
  for (int64_t i = random.between(0, length_max); i > 0; --i) {
    bytes.append(kParts[random.below(std::size(kParts))]);
  }
  return bytes;
}

TEST(Detokenizer, HoldsBackAnIncompleteCharacter) {
  Detokenizer detokenizer(bundled(), true);
  const std::vector<TokenId> euro = bundled().encode("\u20ac", true);
  ASSERT_EQ(euro.size(), 3U);
  EXPECT_EQ(detokenizer.push(euro[0]), "");
  EXPECT_EQ(detokenizer.push(euro[1]), "");
  EXPECT_EQ(detokenizer.push(euro[2]), "\u20ac");
  EXPECT_EQ(detokenizer.push(euro[0]), "");
  EXPECT_EQ(detokenizer.push(64), "\ufffda");
  EXPECT_EQ(detokenizer.push(euro[0]), "");
  EXPECT_EQ(detokenizer.push(510), "") << "special tokens are skipped";
  EXPECT_EQ(detokenizer.flush(), "\ufffd");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST(Detokenizer, EqualsDecodeOfTheWholeWhateverTheBytes) {
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::vector<TokenId> tokens = bundled().encode(random_bytes(random, 20), false);
    if (random.below(2) == 0) tokens.push_back(510);
    const bool skip_special = random.below(2) == 0;
    Detokenizer detokenizer(bundled(), skip_special);
    std::string text;
    for (const TokenId token : tokens) {
      const std::string part = detokenizer.push(token);
      ASSERT_TRUE(is_valid_utf8(part));
      text += part;
    }
    text += detokenizer.flush();
    ASSERT_EQ(text, bundled().decode(tokens, skip_special));
  }
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const auto fixed = [](std::string_view bytes) {
    std::string text;
    EXPECT_EQ(append_valid_utf8(bytes, true, text), bytes.size());
    return text;
  };
  // The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
  EXPECT_EQ(fixed("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(fixed("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\x41");
  EXPECT_EQ(fixed("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\x41\ufffd\ufffd\x42");
  EXPECT_EQ(fixed("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\ufffd\ufffd\ufffd\ufffd\x41");
}

TEST(Utf8, ReadsEveryCodePointBack) {
  for (char32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point >= 0xd800 && code_point < 0xe000) continue;
    std::string bytes;
    append_utf8(code_point, bytes);
    const Utf8Step step = next_utf8(bytes, 0);
    ASSERT_EQ(step.kind, Utf8Kind::kValid);
    ASSERT_EQ(step.code_point, code_point);
    ASSERT_EQ(step.length, bytes.size());
  }
}

struct Cut {
  std::string text;
  std::optional<size_t> index;
};

Cut run_matcher(const std::vector<std::string>& stops, const std::vector<std::string>& parts) {
  StopMatcher matcher(stops);
  Cut cut;
  for (const std::string& part : parts) cut.text += matcher.push(part);
  if (matcher.matched()) cut.index = matcher.matched_index();
  cut.text += matcher.flush();
  return cut;
}

// The match that ends first; of several that end there, the longest.
Cut naive_cut(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t i = 0; i < stops.size(); ++i) {
      if (stops[i].empty() || !std::string_view(text).substr(0, end).ends_with(stops[i])) continue;
      if (!best || stops[i].size() > stops[*best].size()) best = i;
    }
    if (best) return {text.substr(0, end - stops[*best].size()), best};
  }
  return {text, std::nullopt};
}

TEST(StopMatcher, HoldsBackAPossiblePrefix) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("abE"), "ab");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("x"), "ENx");
  EXPECT_EQ(matcher.push("EE"), "E");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.push("NDrest"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, ShowsHeldTextAtTheEnd) {
  StopMatcher matcher({"\n\n"});
  EXPECT_EQ(matcher.push("a\n"), "a");
  EXPECT_EQ(matcher.flush(), "\n");
}

TEST(StopMatcher, WithoutStopStringsPassesAll) {
  StopMatcher matcher({""});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, PrefersTheMatchThatIsCompleteFirst) {
  const Cut cut = run_matcher({"abcd", "bc"}, {"xabcd"});
  EXPECT_EQ(cut.text, "xa");
  EXPECT_EQ(cut.index, 1U);
  EXPECT_EQ(run_matcher({"c", "abc"}, {"xabc"}).text, "x");
}

TEST(StopMatcher, EqualsANaiveSearchHoweverTheTextIsCut) {
  Random random(5);
  const auto random_word = [&](int64_t low, int64_t high) {
    std::string word;
    for (int64_t i = random.between(low, high); i > 0; --i) {
      word.push_back(static_cast<char>('a' + random.below(2)));
    }
    return word;
  };
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::string> stops;
    for (int64_t k = random.between(1, 3); k > 0; --k) stops.push_back(random_word(0, 6));
    const std::string text = random_word(0, 24);
    std::vector<std::string> parts;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = 1 + random.below(5);
      parts.push_back(text.substr(begin, length));
      begin += length;
    }
    const Cut expected = naive_cut(stops, text);
    const Cut cut = run_matcher(stops, parts);
    ASSERT_EQ(cut.text, expected.text) << text;
    ASSERT_EQ(cut.index.has_value(), expected.index.has_value());
    if (cut.index) {
      ASSERT_EQ(stops[*cut.index], stops[*expected.index]);
    }
  }
}

}  // namespace
}  // namespace nanocp::text
