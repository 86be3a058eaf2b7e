#include "text/jinja/template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>

#include "text/chat_template.h"
#include "text/text_file.h"

namespace nanocp::text::jinja {
namespace {

using nlohmann::ordered_json;

constexpr const char* kGolden = "src/text/testdata/jinja_golden.jsonl";

// 2025-08-15 12:00, a Friday, as the goldens have it.
ChatOptions golden_options() {
  std::tm now{};
  now.tm_year = 125;
  now.tm_mon = 7;
  now.tm_mday = 15;
  now.tm_hour = 12;
  now.tm_wday = 5;
  now.tm_yday = 226;
  return {.add_generation_prompt = true, .now = now, .limits = {}};
}

Result<std::string> render(std::string_view source, const ordered_json& variables,
                           const ChatOptions& options) {
  const auto chat_template = ChatTemplate::from_string(source, "t", {{"bos_token", "<s>"}});
  if (!chat_template.ok()) return chat_template.error();
  ordered_json others = variables;
  others.erase("messages");
  return chat_template->render(variables["messages"], nullptr, others, options);
}

TEST(Template, PrintsWhatJinja2Prints) {
  std::istringstream lines(read_text_file(kGolden, 1 << 24).value());
  std::string line;
  std::getline(lines, line);
  const ordered_json variables = ordered_json::parse(line)["variables"];
  int num_cases = 0;
  while (std::getline(lines, line)) {
    const ordered_json test = ordered_json::parse(line);
    const auto source = test["template"].get<std::string>();
    const auto result = render(source, variables, golden_options());
    if (test.contains("printed")) {
      EXPECT_EQ(result.ok() ? result.value() : "error: " + result.error().message,
                test["printed"].get<std::string>())
          << source;
    } else {
      EXPECT_FALSE(result.ok()) << source << "\nprints " << result.value()
                                << "\nJinja2: " << test["error"];
    }
    ++num_cases;
  }
  EXPECT_GE(num_cases, 150);
}

const ordered_json kConversation = {{"messages", {{{"role", "user"}, {"content", "hi"}}}},
                                    {"text", std::string(1 << 20, 'x')}};

struct Hostile {
  const char* name;
  std::string source;
  const char* message;  // of the error, somewhere in it
};

std::string repeated(std::string_view part, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text.append(part);
  return text;
}

// Each would run for ever, fill the memory or overflow the stack.
std::vector<Hostile> growing_templates() {
  const std::string loops = repeated("{% for i in range(100000) %}", 4);
  const std::string ends = repeated("{% endfor %}", 4);
  return {
      {"loops", loops + ends, "more than"},
      {"printing", loops + repeated("0123456789abcdef", 64) + ends, "bytes of output"},
      {"doubling",
       "{% set n = namespace(t='ab') %}{% for i in range(99) %}"
       "{% set n.t = n.t + n.t %}{% endfor %}",
       "bytes of memory"},
      {"tilde",
       "{% set n = namespace(t='ab') %}{% for i in range(99) %}"
       "{% set n.t = n.t ~ n.t %}{% endfor %}",
       "bytes of memory"},
      {"lists",
       "{% set n = namespace(t=[1]) %}{% for i in range(99) %}"
       "{% set n.t = n.t + n.t %}{% endfor %}",
       "bytes of memory"},
      {"multiplied", "{{ 'x' * 999999999999 }}", "bytes of memory"},
      {"multiplied_list", "{{ [1] * 999999999999 }}", "bytes of memory"},
      {"replaced", "{{ text.replace('', text) }}", "bytes of memory"},
      {"joined", "{{ text.join(text | list) }}", "bytes of memory"},
      {"zeros", "{{ 'x'.zfill(999999999999) }}", "bytes of memory"},
      {"indented", "{{ (text | replace('x', '\n')) | indent(1024, blank=true) }}",
       "bytes of memory"},
  };
}

std::vector<Hostile> deep_templates() {
  return {
      {"range", "{{ range(999999999) }}", "elements of a range"},
      {"range_ends", "{{ range(-9223372036854775807, 9223372036854775807) }}",
       "elements of a range"},
      {"recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels of nesting"},
      {"recursion_in_loops",
       "{% macro m(x) %}{% for i in [1, 2] %}{{ m(x) }}{% endfor %}{% endmacro %}{{ m(1) }}",
       "levels of nesting"},
      {"deep_value",
       "{% set n = namespace(t=[]) %}{% for i in range(99999) %}"
       "{% set n.t = [n.t] %}{% endfor %}",
       "lists and dicts inside each other"},
      {"deep_loops",
       "{% set n = namespace(l=1) %}{% for i in range(99999) %}{% for x in [n.l] %}"
       "{% set n.l = loop %}{% endfor %}{% endfor %}",
       "inside each other"},
      {"shared_value",
       "{% set n = namespace(t=[]) %}{% for i in range(100) %}"
       "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
       "more than"},
      {"shared_json",
       "{% set n = namespace(t=[]) %}{% for i in range(100) %}"
       "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t | tojson }}",
       "more than"},
      {"shared_equal",
       "{% set a = namespace(t=[]) %}{% set b = namespace(t=[]) %}"
       "{% for i in range(100) %}{% set a.t = [a.t, a.t] %}{% set b.t = [b.t, b.t] %}"
       "{% endfor %}{{ a.t == b.t }}",
       "steps"},
      {"sorting", "{% for i in range(1000) %}{% set x = text | list | sort %}{% endfor %}",
       "more than"},
      {"searching",
       "{% for i in range(100000) %}{% for j in range(100) %}"
       "{% set x = 'y' in text %}{% endfor %}{% endfor %}",
       "steps"},
  };
}

std::vector<Hostile> unparsable_templates() {
  return {
      {"brackets", "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
       "nested too deeply"},
      {"lists_in_lists", "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}",
       "nested too deeply"},
      {"sums", "{{ 1" + repeated(" + 1", 100000) + " }}", "nested too deeply"},
      {"nots", "{{ " + repeated("not ", 100000) + "1 }}", "nested too deeply"},
      {"minuses", "{{ " + repeated("-", 100000) + "1 }}", "nested too deeply"},
      {"filters", "{{ 1" + repeated("|abs", 100000) + " }}", "nested too deeply"},
      {"attributes", "{{ a" + repeated(".b", 100000) + " }}", "nested too deeply"},
      {"conditionals", "{{ 1" + repeated(" if 1 else 1", 50000) + " }}", "nested too deeply"},
      {"blocks", repeated("{% if 1 %}", 10000) + repeated("{% endif %}", 10000),
       "nested too deeply"},
      {"size", std::string((1 << 20) + 1, 'x'), "larger than 1048576 bytes"},
      {"power", "{{ 10 ** 9999999999 }}", "integer overflow"},
      {"overflow", "{{ 9223372036854775807 + 1 }}", "integer overflow"},
      {"lowest", "{{ (-9223372036854775807 - 1) // -1 }}", "integer overflow"},
      {"big_literal", "{{ 99999999999999999999 }}", "integer out of range"},
      {"date", "{{ strftime_now('%A' * 1000) }}", "longer than 256 bytes"},
  };
}

class HostileTemplate : public testing::TestWithParam<Hostile> {};

TEST_P(HostileTemplate, IsStopped) {
  const auto start = std::chrono::steady_clock::now();
  // Under sanitizers five seconds may end before the limit that is tested does.
  ChatOptions options = golden_options();
  options.limits.duration_us_max = 50'000'000;
  const auto result = render(GetParam().source, kConversation, options);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message.find(GetParam().message), std::string::npos)
      << result.error().message;
  EXPECT_LT(result.error().message.size(), 200U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

std::string name_of(const testing::TestParamInfo<Hostile>& test) {
  return test.param.name;
}
INSTANTIATE_TEST_SUITE_P(Growing, HostileTemplate, testing::ValuesIn(growing_templates()), name_of);
INSTANTIATE_TEST_SUITE_P(Deep, HostileTemplate, testing::ValuesIn(deep_templates()), name_of);
INSTANTIATE_TEST_SUITE_P(Unparsable, HostileTemplate, testing::ValuesIn(unparsable_templates()),
                         name_of);

TEST(Template, StopsInTime) {
  ChatOptions options = golden_options();
  options.limits.steps_max = INT64_MAX;
  options.limits.duration_us_max = 50'000;
  const std::string loop = repeated("{% for i in range(100000) %}", 3);
  const auto start = std::chrono::steady_clock::now();
  const auto result = render(loop + repeated("{% endfor %}", 3), kConversation, options);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(result.error().message, "t: needs more than 50000 microseconds");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Template, NamespacesThatHoldEachOtherAreFreed) {
  // The leak check of AddressSanitizer looks at this one.
  const auto result =
      render("{% set a = namespace() %}{% set b = namespace(o=a) %}{% set a.o = [b, a] %}ok",
             kConversation, golden_options());
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(result.value(), "ok");
}

TEST(Template, SyntaxErrorsNameTheLine) {
  const auto message = [](std::string_view source) {
    const auto parsed = Template::parse(source, "t");
    return parsed.ok() ? "no error" : parsed.error().message;
  };
  EXPECT_EQ(message("a\n\n{{ x | nofilter }}"),
            "t: line 3: the filter 'nofilter' is not supported");
  EXPECT_EQ(message("{{ x is notest }}"), "t: line 1: the test 'notest' is not supported");
  EXPECT_EQ(message("\n{% include 'etc' %}"), "t: line 2: the tag 'include' is not supported");
  EXPECT_EQ(message("{% import 'x' as y %}"), "t: line 1: the tag 'import' is not supported");
  EXPECT_EQ(message("{% for x in y recursive %}{% endfor %}"),
            "t: line 1: recursive loops are not supported");
  EXPECT_EQ(message("{% if x %}\n\n"), "t: line 1: has no endif");
  EXPECT_EQ(message("{{ x"), "t: line 1: a tag has no end");
  EXPECT_EQ(message("{{ 'x }}"), "t: line 1: a string has no end");
  EXPECT_EQ(message("{% break %}"), "t: line 1: break outside of a for");
  EXPECT_EQ(message("{{ f(*x) }}"), "t: line 1: * and ** arguments are not supported");
  EXPECT_EQ(message("{{ '\\ud800' }}"), "t: line 1: a string has a broken escape");
}

}  // namespace
}  // namespace nanocp::text::jinja
