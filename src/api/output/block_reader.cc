#include "api/output/block_reader.h"

#include <array>

#include "base/check.h"

namespace nanocp::api {
namespace {

using Marker = std::string_view;

constexpr std::array<Marker, 1> kXmlOpeners = {"<tool_call>"};
constexpr std::array<Marker, 2> kCoderOpeners = {"<tool_call>", "<function="};
constexpr std::array<Marker, 1> kDeepseekOpeners = {"<｜tool▁call▁begin｜>"};
constexpr std::array<Marker, 2> kDeepseekSections = {"<｜tool▁calls▁begin｜>",
                                                     "<｜tool▁calls▁end｜>"};
constexpr std::array<Marker, 1> kKimiOpeners = {"<|tool_call_begin|>"};
constexpr std::array<Marker, 2> kKimiSections = {"<|tool_calls_section_begin|>",
                                                 "<|tool_calls_section_end|>"};
constexpr std::array<Marker, 1> kMistralOpeners = {"[TOOL_CALLS]"};

}  // namespace

BlockMarkers block_markers(ToolCallFormat format) {
  switch (format) {
    case ToolCallFormat::kNone:
    case ToolCallFormat::kHarmony:
      return {};
    case ToolCallFormat::kHermes:
    case ToolCallFormat::kGlm45:
      return {.openers = kXmlOpeners, .sections = {}};
    case ToolCallFormat::kQwen3Coder:
      return {.openers = kCoderOpeners, .sections = {}};
    case ToolCallFormat::kDeepseekV3:
    case ToolCallFormat::kDeepseekV31:
      return {.openers = kDeepseekOpeners, .sections = kDeepseekSections};
    case ToolCallFormat::kKimiK2:
      return {.openers = kKimiOpeners, .sections = kKimiSections};
    case ToolCallFormat::kMistral:
      return {.openers = kMistralOpeners, .sections = {}};
  }
  return {};
}

std::vector<std::string_view> call_tokens(ToolCallFormat format) {
  switch (format) {
    case ToolCallFormat::kNone:
      return {};
    case ToolCallFormat::kHermes:
    case ToolCallFormat::kQwen3Coder:
      return {"<tool_call>", "</tool_call>"};
    case ToolCallFormat::kGlm45:
      return {"<tool_call>", "</tool_call>", "<arg_key>",
              "</arg_key>",  "<arg_value>",  "</arg_value>"};
    case ToolCallFormat::kDeepseekV3:
    case ToolCallFormat::kDeepseekV31:
      return {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
              "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"};
    case ToolCallFormat::kKimiK2:
      return {"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>",
              "<|tool_call_end|>", "<|tool_call_argument_begin|>"};
    case ToolCallFormat::kMistral:
      return {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"};
    case ToolCallFormat::kHarmony:
      return {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>",
              "<|end|>",   "<|call|>",    "<|return|>"};
  }
  return {};
}

std::unique_ptr<BlockReader> make_block_reader(ToolCallFormat format, size_t opener,
                                               const ToolTypes& types) {
  switch (format) {
    case ToolCallFormat::kNone:
    case ToolCallFormat::kHarmony:
      break;
    case ToolCallFormat::kHermes:
      return make_hermes_reader();
    case ToolCallFormat::kQwen3Coder:
      return make_coder_reader(types, opener == 1);
    case ToolCallFormat::kDeepseekV3:
    case ToolCallFormat::kDeepseekV31:
      return make_deepseek_reader();
    case ToolCallFormat::kKimiK2:
      return make_kimi_reader();
    case ToolCallFormat::kGlm45:
      return make_glm_reader(types);
    case ToolCallFormat::kMistral:
      return make_mistral_reader();
  }
  check_failed(__FILE__, __LINE__, "a format without blocks");
}

}  // namespace nanocp::api
