// A chat template from nobody knows where, over a conversation from nobody knows where: rendering
// never crashes, ends within its limits and says in one line what is wrong.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "text/chat_template.h"

namespace {

using nanocp::text::ChatOptions;
using nanocp::text::ChatTemplate;
using nlohmann::ordered_json;

ordered_json small_chat() {
  return {{"messages",
           {{{"role", "system"}, {"content", "Be brief."}},
            {{"role", "user"}, {"content", "Gr\u00fc\u00dfe \U0001f600"}},
            {{"role", "assistant"},
             {"content", nullptr},
             {"tool_calls",
              {{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", 1}}}}}}}}},
            {{"role", "tool"}, {"content", "42"}}}},
          {"tools", {{{"type", "function"}, {"function", {{"name", "f"}, {"description", "d"}}}}}}};
}

}  // namespace

// The input is a template, perhaps followed by a zero byte and a JSON object of variables.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), input.size());
  static const ordered_json kChat = small_chat();
  const auto chat_template = ChatTemplate::from_string(input.substr(0, cut), "t", {});
  if (!chat_template.ok()) return 0;
  ordered_json variables;
  if (cut < input.size() && input.size() - cut < 4096) {
    variables = ordered_json::parse(input.substr(cut + 1), nullptr, false);
    if (!variables.is_object()) variables = nullptr;
  }
  ChatOptions options;
  options.limits = {.steps_max = 200'000,
                    .memory_bytes_max = 16 << 20,
                    .output_bytes_max = 1 << 20,
                    .duration_us_max = 2'000'000,
                    .depth_max = 300,
                    .value_depth_max = 64};
  const auto result =
      chat_template.value().render(kChat["messages"], kChat["tools"], variables, options);
  if (result.ok()) {
    NANOCP_CHECK(result.value().size() <= (1U << 20));
  } else {
    NANOCP_CHECK(result.error().message.starts_with("t: ") || !variables.is_null());
  }
  return 0;
}
