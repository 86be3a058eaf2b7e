#include "grammar/structured_output.h"

#include <gtest/gtest.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "grammar/test_walk.h"

namespace nanocp::grammar {
namespace {

using Kind = ResponseFormat::Kind;
using nlohmann::json;
using testing_support::matches;
using testing_support::random_walk;

using Compiled = Result<std::shared_ptr<const request::TokenConstraint>>;

Compiled compile(Kind kind, const std::string& text) {
  return Compiler(testing_support::small_vocabulary()).compile({.kind = kind, .text = text});
}

Compiled compile_schema(const std::string& text) {
  return compile(Kind::kJsonSchema, text);
}

struct Case {
  std::string schema;
  std::vector<std::string> good;  // texts that are generated
  std::vector<std::string> bad;
};

void check(const Case& tested) {
  SCOPED_TRACE(tested.schema);
  const Compiled compiled = compile_schema(tested.schema);
  ASSERT_TRUE(compiled.ok()) << compiled.error().message;
  for (const std::string& text : tested.good) EXPECT_TRUE(matches(**compiled, text)) << text;
  for (const std::string& text : tested.bad) EXPECT_FALSE(matches(**compiled, text)) << text;
}

TEST(JsonSchema, TypesAndAnnotations) {
  check({R"({"type":"integer","title":"t","description":"d","default":3})",
         {"0", "-12", "123456789012345678"},
         {"01", "-", "1.5", "1e3", "\"1\"", "", "1234567890123456789"}});
  check({R"({"type":"number"})", {"0.5", "-1e-9", "2E+10", "7"}, {".5", "1.", "1e400", "+1"}});
  check({R"({"type":["string","null"]})", {"null", R"("")", R"("a\u00e9\n\"")"}, {"1", R"("\x")"}});
  check({R"({"type":"string"})",
         {"\"\xc3\xa9\"", R"("\ud83d\ude00")"},
         {"\"\xc3\"", "\"\xed\xa0\x80\"", R"("\ud83d")", R"("\ude00")", "\"\n\""}});
  check({R"({"type":"boolean"})", {"true", "false"}, {"True", "null"}});
  check({"true", {"{\"a\": [1, {}]}", "[]", "\"\"", "null"}, {"{a:1}", "[1,]", "{\"a\":1,}"}});
}

TEST(JsonSchema, ObjectsKeepTheirOrderAndTheirRequirements) {
  check({R"({"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"integer"},
             "m":{"type":"integer"}},"required":["a"]})",
         {R"({"z":1,"a":2,"m":3})", R"({"a":2})", R"({"a": 2, "m": 3})", "{\n  \"a\": 2\n}"},
         {"{}", R"({"z":1})", R"({"a":1,"z":1})", R"({"a":1,"x":1})", R"({"a":1,})",
          R"({"a":1,"a":1})"}});
  check({R"({"type":"object","properties":{"ab":{"type":"integer"},"abc":{"type":"null"}},
             "additionalProperties":{"type":"boolean"}})",
         {"{}", R"({"ab":1,"x":true})", R"({"a":true,"abcd":false})", R"({"":true})",
          R"({"abc":null})", "{\"\xc3\xa9\":true}"},
         {R"({"x":1})", R"({"x":true,"ab":1})", R"({"ab":true})", R"({"a\u0062":true})"}});
  check({R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}});
  check({R"({"type":"object","properties":{"a":false,"b":{"type":"null"}}})",
         {"{}", R"({"b":null})"},
         {R"({"a":1})"}});
  check({R"({"required":["k"],"properties":{}})", {R"({"k":[1]})"}, {"{}"}});
}

// As much as writers of JSON put, where they put it: models that like it would fill answers with
// it.
TEST(JsonSchema, WhiteSpaceIsThatOfWriters) {
  const std::string indent20(20, ' ');
  const std::vector<std::string> good = {"{\"a\":[1,2]}",
                                         "{\"a\": [1, 2]}",
                                         "{ \"a\": [ 1, 2 ] }",
                                         "{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}",
                                         "{\n" + indent20 + "\"a\": [1,\n2]\n" + indent20 + "}",
                                         "{\n  \"a\": [ ]\n}"};
  const std::vector<std::string> bad = {"{\"a\":  [1,2]}",
                                        "{\"a\":\n[1,2]}",
                                        "{\"a\" :[1,2]}",
                                        "{\"a\":[1 ,2]}",
                                        "{\"a\":[1,  2]}",
                                        "{\"a\":[1,2]\n\n}",
                                        "{\"a\":[1,2] \n}",
                                        "{\"a\":[\r\n1,2]}",
                                        " {\"a\":[1,2]}",
                                        "{\"a\":[1,2]} ",
                                        "{\n " + indent20 + "\"a\":[1,2]}"};
  for (const char* schema :
       {R"({"type":"object"})",
        R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"integer"}}}})",
        R"({"type":"object","additionalProperties":{"type":"array"}})",
        R"({"type":"object","properties":{"a":{"type":"array","prefixItems":[{"type":"integer"},
            {"type":"integer"}]}},"required":["a"],"additionalProperties":true})"}) {
    check({schema, good, bad});
  }
}

TEST(JsonSchema, Arrays) {
  check({R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
         {"[1]", "[1, 2,3]", "[ 1\n]"},
         {"[]", "[1,2,3,4]", "[1,]", "[1 2]"}});
  check({R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"null"}],
             "items":{"type":"boolean"},"minItems":2})",
         {"[1,null]", "[1,null,true,false]"},
         {"[1]", "[1,true]", "[1,null,null]"}});
  check({R"({"type":"array","items":[{"type":"integer"}]})", {"[]", "[1]"}, {"[1,1]"}});
  check({R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}});
  check({R"({"type":"array","items":{"type":"null"},"minItems":200,"maxItems":200})",
         {},
         {"[null]"}});
}

TEST(JsonSchema, Values) {
  check({R"({"enum":["a","ab",1,null]})", {R"("a")", R"("ab")", "1", "null"}, {R"("b")", "12"}});
  check({R"({"const":{"a":["x"]}})", {R"({"a":["x"]})"}, {R"({"a":[]})"}});
  check({R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}});
}

TEST(JsonSchema, Alternatives) {
  check({R"({"anyOf":[{"type":"integer"},{"type":"null"}]})", {"1", "null"}, {"\"\""}});
  check({R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},
             "oneOf":[{"required":["a"]},{"required":["b"]}]})",
         {R"({"a":1})", R"({"b":1})", R"({"a":1,"b":1})"},
         {"{}"}});
  check({R"({"type":"string","nullable":true})", {"null", R"("")"}, {"1"}});
}

TEST(JsonSchema, SchemasThatMustHoldTogether) {
  check({R"({"allOf":[{"type":"object","properties":{"a":{"type":"number"}},"required":["a"]},
                      {"properties":{"b":{"const":1},"a":{"minimum":3,"type":"integer"}}}]})",
         {R"({"a":3})", R"({"a":4,"b":1})"},
         {R"({"a":2})", R"({"a":3.5})", R"({"b":1})"}});
  check({R"({"$defs":{"A":{"type":"string"}},"allOf":[{"$ref":"#/$defs/A"}],"description":"x"})",
         {R"("")"},
         {"1"}});
  check({R"({"allOf":[{"type":"object","properties":{"a":{"type":"null"}},
                       "additionalProperties":false},{"properties":{"b":{"type":"null"}}}]})",
         {"{}", R"({"a":null})"},
         {R"({"b":null})"}});
  check({R"({"$defs":{"A":{"type":"integer","minimum":3}},"$ref":"#/$defs/A","maximum":5})",
         {"3", "5"},
         {"2", "6"}});
}

TEST(JsonSchema, Recursion) {
  check({R"({"$defs":{"N":{"type":"object","properties":{"v":{"type":"integer"},
             "next":{"anyOf":[{"$ref":"#/$defs/N"},{"type":"null"}]}},"required":["v","next"]}},
             "$ref":"#/$defs/N"})",
         {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
         {R"({"v":1,"next":{}})", R"({"v":1})"}});
  check({R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}});
}

TEST(JsonSchema, LengthsAndPatterns) {
  check({R"({"type":"string","minLength":2,"maxLength":3})",
         {R"("ab")", R"("\n\n\n")", "\"\xc3\xa9\xc3\xa9\""},
         {R"("a")", R"("abcd")", "\"\xc3\xa9\""}});
  check({R"({"type":"string","pattern":"^\\d{3}-[a-c\"]+$"})",
         {R"("123-a")", R"("123-\"")"},
         {R"("12-a")", R"("123-d")", R"("123-")"}});
  check({R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("ac")"}});
  check({R"({"type":"string","pattern":"^a$|^b"})", {R"("a")", R"("bx")"}, {R"("ax")"}});
  check({R"({"type":"string","format":"date"})",
         {R"("2024-02-28")", R"("1999-12-31")"},
         {R"("2023-02-29")", R"("2024-13-01")", R"("24-01-01")"}});
  check({R"({"type":"string","format":"uuid"})",
         {R"("01234567-89ab-cdef-0123-456789abcdef")"},
         {R"("0123456789abcdef0123456789abcdef")"}});
  check({R"({"type":"string","format":"uri","minLength":1,"maxLength":2083})",
         {R"("https://example.com/a?b=c")"},
         {R"("example.com")"}});
}

// Every number in reach of both bounds against the comparison itself.
TEST(JsonSchema, RangesOfNumbers) {
  Random random(5);
  for (int round = 0; round < 60; ++round) {
    const int64_t a = random.between(-1200, 1200);
    const int64_t b = a + random.between(0, 300);
    const bool excludes = random.below(2) == 0;
    const std::string scale = round % 2 == 0 ? "" : "e-1";
    const json low = json::parse(std::to_string(a) + scale);
    const json high = json::parse(std::to_string(b) + scale);
    const json schema = {{"type", round % 2 == 0 ? "integer" : "number"},
                         {excludes ? "exclusiveMinimum" : "minimum", low},
                         {excludes ? "exclusiveMaximum" : "maximum", high}};
    const Compiled compiled = compile_schema(schema.dump());
    const bool is_possible = round % 2 == 0 ? (excludes ? b - a > 1 : true) : a < b || !excludes;
    ASSERT_EQ(compiled.ok(), is_possible) << schema;
    if (!is_possible) continue;
    for (int64_t v = a - 40; v <= b + 40; ++v) {
      const std::string text =
          round % 2 == 0 ? std::to_string(v) : json(static_cast<double>(v) / 10).dump();
      const bool expected = excludes ? v > a && v < b : v >= a && v <= b;
      if (text == "-0.0") continue;
      ASSERT_EQ(matches(**compiled, text), expected) << schema << " " << text;
    }
  }
}

TEST(JsonSchema, RangesOpenOnOneSide) {
  check({R"({"type":"number","minimum":0,"maximum":1})",
         {"0", "0.0", "0.25", "1", "1.0", "1.000"},
         {"-0.1", "1.0001", "2", "-0", "01"}});
  check({R"({"type":"integer","minimum":1})", {"1", "99999"}, {"0", "-1"}});
  check({R"({"type":"number","exclusiveMinimum":0})", {"0.001", "5"}, {"0", "0.000", "-1"}});
  check({R"({"type":"integer","maximum":-5})", {"-5", "-1234"}, {"-4", "0", "5"}});
  check({R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
         {"0", "-5", "123456789012345678"},
         {"1.5"}});
  check({R"({"type":"number","maximum":1e30})", {"0.5", "-999999999999999999"}, {"2e30", "1e99"}});
}

TEST(JsonSchema, WhatIsNotCoveredIsRefusedByName) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"not":{}})", "/not"},
      {R"({"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}})",
       "/properties/a/uniqueItems"},
      {R"({"type":"object","patternProperties":{}})", "patternProperties"},
      {R"({"type":"number","multipleOf":2})", "multipleOf"},
      {R"({"if":{},"then":{}})", "/if"},
      {R"({"type":"string","pattern":"(?=a)b"})", "/pattern"},
      {R"({"type":"string","pattern":"(a)\\1"})", "/pattern"},
      {R"({"type":"string","pattern":"^a*$","maxLength":3})", "/maxLength"},
      {R"({"type":"string","format":"iri"})", "iri"},
      {R"({"$ref":"https://example.com/x"})", "/$ref"},
      {R"({"allOf":[{"type":"string","pattern":"a"},{"pattern":"b"}]})", "pattern"},
      {R"({"type":"integer","enum":[1,2],"minimum":2})", "/minimum"},
  };
  for (const auto& [schema, named] : kCases) {
    const Compiled compiled = compile_schema(schema);
    ASSERT_FALSE(compiled.ok()) << schema;
    EXPECT_EQ(compiled.error().code, ErrorCode::kUnsupported) << schema;
    EXPECT_NE(compiled.error().message.find(named), std::string::npos)
        << schema << ": " << compiled.error().message;
  }
}

TEST(JsonSchema, WhatIsWrongIsRefused) {
  for (const char* schema :
       {"",
        "{",
        "[]",
        "3",
        R"({"type":"text"})",
        R"({"type":[]})",
        R"({"properties":[]})",
        R"({"type":"string","minLength":-1})",
        R"({"type":"string","minLength":3,"maxLength":2})",
        R"({"$ref":"#/$defs/missing"})",
        R"({"$ref":5})",
        R"({"anyOf":[]})",
        R"({"enum":[]})",
        R"({"required":"a"})",
        R"({"minimum":"1"})",
        R"({"anyOf":[{"$ref":"#"}]})",
        R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
        "false",
        R"({"allOf":[{"$ref":"#"}]})",
        R"({"type":"string","pattern":"["})",
        R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})",
        R"({"type":"integer","minimum":5,"maximum":4})",
        "{\"enum\":[\"\xff\"]}",
        R"({"properties":{"a":5}})",
        R"({"exclusiveMinimum":true,"minimum":3})"}) {
    const Compiled compiled = compile_schema(schema);
    ASSERT_FALSE(compiled.ok()) << schema;
    EXPECT_EQ(compiled.error().code, ErrorCode::kInvalidArgument)
        << schema << ": " << compiled.error().message;
  }
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

std::string many(const std::string& before, int count, const std::string& after) {
  std::string out;
  for (int i = 0; i < count; ++i) out += (i == 0 ? "" : ",") + before + std::to_string(i) + after;
  return out;
}

// Each compiles or is refused, and can be walked or says why not, in bounded time.
TEST(JsonSchema, HostileSchemasAreBounded) {
  std::string doubling = R"({"$defs":{"d0":{"type":"string"})";
  for (int i = 1; i < 40; ++i) {
    const std::string ref = R"({"$ref":"#/$defs/d)" + std::to_string(i - 1) + R"("})";
    doubling += R"(,"d)" + std::to_string(i) + R"(":{"allOf":[{"properties":{"a":)" + ref +
                R"(,"b":)" + ref + R"(}},{"properties":{"a":)" + ref + R"(,"b":)" + ref + "}}]}";
  }
  doubling += R"(},"$ref":"#/$defs/d39"})";
  const std::string schemas[] = {
      repeated(R"({"items":)", 60) + "{}" + repeated("}", 60),
      repeated(R"({"items":)", 50'000),
      repeated("[", 200'000),
      R"({"enum":[)" + many("\"value number ", 10'000, "\"") + "]}",
      R"({"type":"object","properties":{)" + many("\"key", 1000, "\":{\"type\":\"string\"}") + "}}",
      R"({"type":"object","properties":{)" + many("\"key", 5000, "\":{\"type\":\"string\"}") + "}}",
      doubling,
      R"({"type":"string","pattern":"((a?){1000}){1000}"})",
      R"({"type":"string","pattern":"^(.*a){20}.{1000}$"})",
      R"({"type":"string","pattern":")" + repeated("(a|b|ab)*", 3000) + "\"}",
      R"({"type":"string","pattern":")" + repeated("(", 5000) + "\"}",
      R"({"type":"string","pattern":")" + repeated("(x+", 60) + repeated(")+", 60) + "\"}",
      R"({"anyOf":[)" + many("{\"type\":\"array\",\"minItems\":", 2000, "}") + "]}",
      R"({"$defs":{)" + many("\"d", 900, R"(":{"anyOf":[{"$ref":"#/$defs/d1"},{"$ref":"#"}]})") +
          R"(},"$ref":"#/$defs/d899"})",
      R"({"type":"array","items":{"type":"array","items":{"type":"array","minItems":900000},
          "minItems":900000},"minItems":900000})",
  };
  Random random(7);
  for (const std::string& schema : schemas) {
    SCOPED_TRACE(schema.substr(0, 60));
    const std::clock_t start = std::clock();  // processor time: the machine may be busy
    const Compiled compiled = compile_schema(schema);
    if (compiled.ok()) {
      random_walk(**compiled, random, 20, 40);
    } else {
      EXPECT_LT(compiled.error().message.size(), 1000U);
    }
    const double took_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_LT(took_s, 5.0 / NANOCP_TEST_SCALE);
  }
}

TEST(StructuredOutput, AnyJsonObjectParses) {
  const Compiled compiled = compile(Kind::kJsonObject, "");
  ASSERT_TRUE(compiled.ok());
  Random random(9);
  size_t longest = 0;
  for (size_t i = 0; i < 200; ++i) {
    const auto walked = random_walk(**compiled, random, i);
    ASSERT_TRUE(walked.is_complete) << walked.text << walked.problem;
    EXPECT_TRUE(json::parse(walked.text).is_object()) << walked.text;
    longest = std::max(longest, walked.text.size());
  }
  EXPECT_GT(longest, 100U);
}

TEST(StructuredOutput, Choices) {
  Compiler compiler(testing_support::small_vocabulary());
  const auto compiled = compiler.compile({.kind = Kind::kChoice, .choices = {"yes", "no", "not"}});
  ASSERT_TRUE(compiled.ok());
  for (const char* good : {"yes", "no", "not"}) EXPECT_TRUE(matches(**compiled, good));
  for (const char* bad : {"", "n", "ye", "nots", "yesno"}) EXPECT_FALSE(matches(**compiled, bad));
  EXPECT_FALSE(compiler.compile({.kind = Kind::kChoice}).ok());
  EXPECT_FALSE(
      compiler.compile({.kind = Kind::kChoice, .choices = {std::string(400'000, 'a')}}).ok());
}

TEST(StructuredOutput, Patterns) {
  const auto compiled = compile(Kind::kRegex, "(foo|ba[rz])+[^a-y\\s]{2,3}?\\x41\\u00e9$");
  ASSERT_TRUE(compiled.ok()) << compiled.error().message;
  EXPECT_TRUE(matches(**compiled, "fooBZA\xc3\xa9"));
  EXPECT_TRUE(matches(**compiled, "barbazz1zA\xc3\xa9"));
  EXPECT_FALSE(matches(**compiled, "foo1A\xc3\xa9"));
  EXPECT_FALSE(matches(**compiled, "foo1 A\xc3\xa9"));
  EXPECT_FALSE(matches(**compiled, "fooBZA\xc3\xa9!"));
}

// Their end is known only from the counts: those of an unrolled and of a counted repetition agree.
TEST(StructuredOutput, CountsOfPatterns) {
  struct Counted {
    const char* pattern;
    int min;  // times "ab"
    int max;
  };
  for (const Counted& counted : {Counted{"(ab|a){2,4}", 2, 4}, Counted{"(ab|a){40,60}", 40, 60},
                                 Counted{"(a?b?){3,5}", 0, 5}, Counted{"(a?b?){70,90}", 0, 90}}) {
    const auto compiled = compile(Kind::kRegex, counted.pattern);
    ASSERT_TRUE(compiled.ok()) << compiled.error().message;
    for (const int count : {0, 1, 2, 3, 4, 5, 6, 39, 40, 60, 61, 90, 91}) {
      EXPECT_EQ(matches(**compiled, repeated("ab", count)),
                count >= counted.min && count <= counted.max)
          << counted.pattern << " " << count;
    }
  }
}

TEST(StructuredOutput, Grammars) {
  const auto compiled = compile(Kind::kGrammar, R"GBNF(# arithmetic
root ::= sum "\n"?
sum  ::= term (("+" | "-") term)*
term ::= [0-9]{1,3}
       | "(" sum ")"   # nested
)GBNF");
  ASSERT_TRUE(compiled.ok()) << compiled.error().message;
  for (const char* good : {"1", "12+(3-4)\n", "((999))"}) EXPECT_TRUE(matches(**compiled, good));
  for (const char* bad : {"", "1+", "(1", "1234", "1\n\n"}) EXPECT_FALSE(matches(**compiled, bad));
  for (const auto& [text, part] : std::initializer_list<std::pair<const char*, const char*>>{
           {"root ::= a", "'a'"},
           {"x ::= \"a\"", "root"},
           {"root ::= root \"a\" | \"b\"", "begins with itself"},
           {"root ::= \"a", "line 1"},
           {"root ::= \"a\"\nroot ::= \"b\"", "line 2"},
           {"root ::= [z-a]", "line 1"},
           {"root : \"a\"", "::="}}) {
    const auto failed = compile(Kind::kGrammar, text);
    ASSERT_FALSE(failed.ok()) << text;
    EXPECT_NE(failed.error().message.find(part), std::string::npos) << failed.error().message;
  }
}

TEST(StructuredOutput, StartsAfterAMark) {
  Compiler compiler(testing_support::small_vocabulary());
  const auto compiled = compiler.compile(
      {.kind = Kind::kRegex, .text = "ab", .choices = {}, .starts_after = {'<', '>'}});
  ASSERT_TRUE(compiled.ok());
  const auto state = (*compiled)->start();
  for (const char c : std::string("x<y<<>")) {
    EXPECT_EQ(state->allowed(), nullptr);
    EXPECT_TRUE(state->accept(c));
  }
  ASSERT_NE(state->allowed(), nullptr);
  for (const char c : std::string("\n\nab")) EXPECT_TRUE(state->accept(c));
  EXPECT_TRUE(state->accept(testing_support::kEnd));
}

TEST(StructuredOutput, SaysWhatWasNotAllowed) {
  const auto compiled = compile(Kind::kRegex, "ab");
  const auto state = (*compiled)->start();
  EXPECT_FALSE(state->accept('b'));
  EXPECT_NE(state->problem().find("token 98"), std::string::npos);
  const auto other = (*compiled)->start();
  EXPECT_FALSE(other->accept(testing_support::kEnd));
}

TEST(StructuredOutput, AVocabularyThatCannotSpellItIsAProblem) {
  const auto vocabulary = std::make_shared<const Vocabulary>(std::vector<std::string>{"a", "b", ""},
                                                             std::vector<TokenId>{2});
  Compiler compiler(vocabulary);
  const auto compiled = compiler.compile({.kind = Kind::kRegex, .text = "abc"});
  ASSERT_TRUE(compiled.ok());
  const auto state = (*compiled)->start();
  EXPECT_EQ(state->allowed()->at(0), 1U);
  EXPECT_TRUE(state->accept(0));
  EXPECT_TRUE(state->accept(1));
  EXPECT_EQ(state->allowed()->at(0), 0U);
  EXPECT_NE(state->problem().find("no token"), std::string::npos);
}

TEST(StructuredOutput, EqualFormatsAreCompiledOnce) {
  Compiler compiler(testing_support::small_vocabulary());
  const ResponseFormat format = {.kind = Kind::kRegex, .text = "a+"};
  EXPECT_EQ(*compiler.compile(format), *compiler.compile(format));
}

}  // namespace
}  // namespace nanocp::grammar
