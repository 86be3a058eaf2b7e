#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "text/jinja/template.h"

namespace nanocp::text {
namespace {

using nlohmann::ordered_json;

const ordered_json kNone;
const ordered_json kHello = {{{"role", "user"}, {"content", "hello"}}};

// A folder of this test's own, removed at the end.
class ModelFolder {
 public:
  ModelFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "nanocp-chat-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name) << content;
  }
  std::string load_error() const {
    const auto loaded = ChatTemplate::load(path_);
    if (loaded.ok()) return "no error";
    // Without the name of the folder.
    const std::string& message = loaded.error().message;
    return message.starts_with(path_.string()) ? message.substr(path_.string().size()) : message;
  }
  std::string rendered(const ordered_json& tools) const {
    const auto loaded = ChatTemplate::load(path_);
    if (!loaded.ok()) return loaded.error().message;
    const auto text = loaded.value().render(kHello, tools, kNone, {});
    return text.ok() ? text.value() : text.error().message;
  }

 private:
  std::filesystem::path path_;
};

TEST(ChatTemplate, ComesFromTheFileOrTheConfig) {
  const ModelFolder folder;
  EXPECT_NE(folder.load_error().find("no chat template"), std::string::npos);
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<s>"}, "eos_token": null,
                   "chat_template": "{{ bos_token }}{{ eos_token is defined }} config"})");
  EXPECT_EQ(folder.rendered(kNone), "<s>False config");
  folder.write("chat_template.jinja", "{{ bos_token }} file");
  EXPECT_EQ(folder.rendered(kNone), "<s> file");
}

TEST(ChatTemplate, ToolsHaveATemplateOfTheirOwn) {
  const ModelFolder folder;
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "plain"},
                                     {"name": "tool_use", "template": "{{ tools | tojson }}"}]})");
  EXPECT_EQ(folder.rendered(kNone), "plain");
  EXPECT_EQ(folder.rendered(ordered_json::array()), "plain");
  EXPECT_EQ(folder.rendered({{{"z", 1}, {"a", "\u00e9"}}}), "[{\"z\": 1, \"a\": \"\u00e9\"}]");
}

TEST(ChatTemplate, BadConfigsAreRefusedByFileAndField) {
  const ModelFolder folder;
  const auto error = [&](const std::string& config) {
    folder.write("tokenizer_config.json", config);
    return folder.load_error();
  };
  const std::string file = "/tokenizer_config.json: ";
  EXPECT_EQ(error("{"), file + "not valid JSON near byte 2");
  EXPECT_EQ(error("[]"), file + "the document must be an object");
  EXPECT_EQ(error(R"({"bos_token": 7})"), file + "bos_token must be a string");
  EXPECT_EQ(error(R"({"bos_token": {"content": 7}})"), file + "bos_token.content must be a string");
  EXPECT_EQ(error(R"({"chat_template": 7})"),
            file + "chat_template must be a string or a list of named templates");
  EXPECT_EQ(error(R"({"chat_template": [7]})"), file + "chat_template[0] must be an object");
  EXPECT_EQ(error(R"({"chat_template": [{"name": "default"}]})"),
            file + "chat_template[0].template must be a string");
  EXPECT_EQ(error(R"({"chat_template": "{% if %}"})"),
            file + "chat_template: line 1: expected an expression");
  EXPECT_EQ(ChatTemplate::load("no/such").error().message, "no/such: no such directory");
}

Result<std::string> render(std::string_view source, const ordered_json& messages,
                           const ordered_json& variables, const ChatOptions& options) {
  const auto chat_template = ChatTemplate::from_string(source, "t", {{"bos_token", "<s>"}});
  if (!chat_template.ok()) return chat_template.error();
  return chat_template.value().render(messages, nullptr, variables, options);
}

TEST(ChatTemplate, VariablesDoNotReplaceTheConversation) {
  const auto text =
      render("{{ messages[0].content }} {{ mood }} {{ add_generation_prompt }} {{ tools }}", kHello,
             {{"mood", "calm"}, {"messages", 7}, {"tools", 7}, {"add_generation_prompt", 7}},
             {.add_generation_prompt = false});
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(text.value(), "hello calm False None");
}

TEST(ChatTemplate, BadConversationsAreRefusedByField) {
  const auto error = [](const ordered_json& messages, const ordered_json& variables) {
    const auto text = render("x", messages, variables, {});
    return text.ok() ? "no error" : text.error().message;
  };
  EXPECT_EQ(error(kNone, kNone), "messages must be a list");
  EXPECT_EQ(error(ordered_json::array(), kNone), "messages must not be empty");
  EXPECT_EQ(error({7}, kNone), "messages[0] must be an object");
  EXPECT_EQ(error({{{"role", 7}}}, kNone), "messages[0].role must be a string");
  EXPECT_EQ(error(kHello, 7), "template variables must be an object");
  EXPECT_EQ(error({{{"role", "user"}, {"n", UINT64_MAX}}}, kNone),
            "messages[0].n is an integer outside of 64 bits");
  ordered_json deep;
  for (int i = 0; i < 1000; ++i) deep = ordered_json::array({std::move(deep)});
  EXPECT_TRUE(error(kHello, {{"x", std::move(deep)}}).ends_with("is nested too deeply"));
}

TEST(ChatTemplate, ARaisedMessageFollowsTheName) {
  const auto text = render("{{ raise_exception('roles must alternate') }}", kHello, kNone, {});
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(text.error().message, "t: roles must alternate");
}

TEST(ChatTemplate, TheClockIsAnArgument) {
  std::tm now{};
  now.tm_year = 126;
  now.tm_mday = 2;
  const auto text =
      render("{{ strftime_now('%Y-%m-%d') }}{{ strftime_now('') }}", kHello, kNone, {.now = now});
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(text.value(), "2026-01-02");
  EXPECT_TRUE(render("{{ strftime_now('%d') }}", kHello, kNone, {}).ok());
}

}  // namespace
}  // namespace nanocp::text
