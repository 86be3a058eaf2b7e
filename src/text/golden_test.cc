// Goldens of published tokenizers and templates. The templates are in the repository; the
// tokenizers are large, so that they are only read from the folder that NANOCP_TOKENIZERS names:
// one folder each with tokenizer.json, chat_template.jinja, tokenizer_config.json and golden.jsonl.
#include "text/golden.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "text/text_file.h"

namespace nanocp::text {
namespace {

constexpr const char* kTemplates = "src/text/testdata/chat_templates";
constexpr int64_t kGoldenBytesMax = int64_t{64} << 20;

GoldenReport check_folder(const std::filesystem::path& folder, const Tokenizer* tokenizer) {
  const auto chat_template = ChatTemplate::load(folder);
  EXPECT_TRUE(chat_template.ok()) << chat_template.error().message;
  const auto golden = read_text_file(folder / "golden.jsonl", kGoldenBytesMax);
  EXPECT_TRUE(golden.ok()) << golden.error().message;
  if (!chat_template.ok() || !golden.ok()) return {};
  auto report = check_goldens(golden.value(), folder.string(), {tokenizer, &chat_template.value()});
  EXPECT_TRUE(report.ok()) << report.error().message;
  if (!report.ok()) return {};
  for (const GoldenFailure& failure : report->failures) {
    ADD_FAILURE() << folder << " " << failure.id << ": " << failure.message;
  }
  return std::move(report).value();
}

TEST(Golden, ChatTemplatesGiveTheReferenceText) {
  int num_chats = 0;
  for (const char* name : {"qwen3", "deepseek_v3", "gptoss", "deepseek_v3_1", "kimi_k2"}) {
    num_chats += check_folder(std::filesystem::path(kTemplates) / name, nullptr).num_chats;
  }
  EXPECT_EQ(num_chats, 34 + 26 + 28 + 28 + 26);
}

TEST(Golden, PublishedTokenizersGiveTheReferenceIds) {
  const char* root = std::getenv("NANOCP_TOKENIZERS");
  if (root == nullptr) GTEST_SKIP() << "NANOCP_TOKENIZERS names no folder";
  int num_folders = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (!std::filesystem::exists(entry.path() / "tokenizer.json")) continue;
    const auto tokenizer = Tokenizer::from_file(entry.path() / "tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    const GoldenReport report = check_folder(entry.path(), &tokenizer.value());
    EXPECT_GE(report.num_texts + report.num_chats, 1) << entry.path();
    ++num_folders;
  }
  EXPECT_GE(num_folders, 1) << root;
}

std::string error_of(std::string_view line) {
  const auto report = check_goldens(line, "g.jsonl", {});
  return report.ok() ? "no error" : report.error().message;
}

TEST(Golden, BadFilesAreRefusedByLineAndField) {
  EXPECT_EQ(error_of(""), "no error");
  EXPECT_EQ(error_of("\n{"), "g.jsonl line 2: not valid JSON near byte 2");
  EXPECT_EQ(error_of("[]"), "g.jsonl line 1: the document must be an object");
  EXPECT_EQ(error_of(R"({"id": "a", "kind": "x"})"), "g.jsonl line 1: kind must be text or chat");
  EXPECT_EQ(error_of(R"({"id": "a", "kind": "text"})"),
            "g.jsonl line 1: the document needs a tokenizer.json");
  EXPECT_EQ(error_of(R"({"id": "a", "kind": "chat"})"),
            "g.jsonl line 1: the document needs a chat template");
}

TEST(Golden, DifferencesAreFound) {
  const auto tokenizer = Tokenizer::from_file("tests/fixtures/tiny_chat/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok());
  const auto chat_template = ChatTemplate::from_string("{{ messages[0].content }}", "t", {});
  ASSERT_TRUE(chat_template.ok());
  const auto first_difference = [&](std::string_view line) -> std::string {
    const auto report = check_goldens(line, "g", {&tokenizer.value(), &chat_template.value()});
    EXPECT_TRUE(report.ok()) << report.error().message;
    return report->failures.empty() ? "none" : report->failures[0].message;
  };
  EXPECT_EQ(first_difference(R"({"id":"a","kind":"text","text":"!","ids":[0],"decoded":"!"})"),
            "none");
  EXPECT_EQ(first_difference(R"({"id":"a","kind":"text","text":"!","ids":[1],"decoded":"!"})"),
            "ids differ at 0: 0, golden 1");
  EXPECT_EQ(first_difference(R"({"id":"a","kind":"text","text":"!","ids":[0],"decoded":"?"})"),
            "the text differs at byte 0: '!', golden '?'");
  const std::string chat =
      R"({"id":"a","kind":"chat","messages":[{"role":"user","content":"hi"}],)";
  EXPECT_EQ(first_difference(chat + R"("rendered":"hi"})"), "none");
  EXPECT_EQ(first_difference(chat + R"("rendered":"ho"})"),
            "the rendered text differs at byte 1: 'i', golden 'o'");
  EXPECT_EQ(first_difference(chat + R"("error":"no"})"),
            "the template gave a text, golden the error 'no'");
}

}  // namespace
}  // namespace nanocp::text
