#include "apps/verify_tokenizer.h"

#include <cstdio>
#include <iostream>
#include <optional>
#include <system_error>

#include "apps/json_output.h"
#include "text/golden.h"
#include "text/text_file.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr int64_t kGoldenBytesMax = int64_t{1} << 30;
constexpr size_t kShownMax = 20;

void print_text(const text::GoldenReport& report) {
  for (size_t i = 0; i < std::min(report.failures.size(), kShownMax); ++i) {
    std::printf("%s: %s\n", report.failures[i].id.c_str(), report.failures[i].message.c_str());
  }
  if (report.failures.size() > kShownMax) std::printf("...\n");
  std::printf("%s: %d texts, %d chats, failed cases %zu\n",
              report.failures.empty() ? "PASSED" : "FAILED", report.num_texts, report.num_chats,
              report.failures.size());
}

void print_json(const text::GoldenReport& report) {
  json failures = json::array();
  for (const text::GoldenFailure& failure : report.failures) {
    failures.push_back({{"id", failure.id}, {"message", failure.message}});
  }
  std::cout << json_text({{"failures", std::move(failures)},
                          {"summary",
                           {{"passed", report.failures.empty()},
                            {"num_texts", report.num_texts},
                            {"num_chats", report.num_chats},
                            {"num_failed", report.failures.size()}}}});
}

}  // namespace

Result<int> verify_tokenizer(const std::filesystem::path& folder,
                             const std::filesystem::path& golden_file, bool as_json) {
  NANOCP_ASSIGN_OR_RETURN(const std::string golden,
                          text::read_text_file(golden_file, kGoldenBytesMax));
  std::optional<text::Tokenizer> tokenizer;
  std::error_code error;
  if (std::filesystem::exists(folder / "tokenizer.json", error)) {
    NANOCP_ASSIGN_OR_RETURN(tokenizer, text::Tokenizer::from_file(folder / "tokenizer.json"));
  }
  std::optional<text::ChatTemplate> chat_template;
  auto loaded = text::ChatTemplate::load(folder);
  if (loaded.ok()) {
    chat_template = std::move(loaded).value();
  } else if (loaded.error().code != ErrorCode::kNotFound) {
    return loaded.error();
  }
  NANOCP_ASSIGN_OR_RETURN(
      const text::GoldenReport report,
      text::check_goldens(golden, golden_file.string(),
                          {.tokenizer = tokenizer ? &*tokenizer : nullptr,
                           .chat_template = chat_template ? &*chat_template : nullptr}));
  as_json ? print_json(report) : print_text(report);
  return report.failures.empty() ? 0 : 1;
}

}  // namespace nanocp::apps
