#include "api/output_parser.h"

#include <nlohmann/json.hpp>

#include "api/output/block_reader.h"
#include "api/output/harmony_parser.h"
#include "api/output/tag_parser.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

// Parameters that a tool leaves out are an object of any kind.
Json parameters_of(const Json& tool) {
  const auto& function = tool.at("function");
  const auto found = function.find("parameters");
  if (found == function.end() || !found->is_object()) return {{"type", "object"}};
  return *found;
}

}  // namespace

Json forced_tool_schema(const Json& tools, std::string_view named_tool) {
  if (!named_tool.empty()) {
    for (const Json& tool : tools) {
      if (tool.at("function").at("name") == named_tool) return parameters_of(tool);
    }
    check_failed(__FILE__, __LINE__, "no tool has the name " + std::string(named_tool));
  }
  Json choices = Json::array();
  for (const Json& tool : tools) {
    choices.push_back({{"type", "object"},
                       {"properties",
                        {{"name", {{"const", tool.at("function").at("name")}}},
                         {"parameters", parameters_of(tool)}}},
                       {"required", {"name", "parameters"}},
                       {"additionalProperties", false}});
  }
  return {{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", std::move(choices)}}}};
}

std::vector<std::string_view> format_tokens(const OutputFormat& format) {
  if (format.reasoning == ReasoningFormat::kHarmony) return call_tokens(ToolCallFormat::kHarmony);
  std::vector<std::string_view> tokens = call_tokens(format.tool_calls);
  if (format.reasoning != ReasoningFormat::kNone) {
    tokens.insert(tokens.end(), {"<think>", "</think>"});
  }
  return tokens;
}

std::unique_ptr<OutputParser> make_output_parser(const OutputParserOptions& options) {
  if (options.format.reasoning == ReasoningFormat::kHarmony ||
      options.format.tool_calls == ToolCallFormat::kHarmony) {
    return std::make_unique<HarmonyParser>(options);
  }
  return std::make_unique<TagParser>(options);
}

}  // namespace nanocp::api
