// What the tests of output parsers share: an answer parsed whole, in single characters or in random
// cuts gives the same result, and its deltas keep the rules of OpenAI's streams.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "api/output_parser.h"
#include "base/random.h"

namespace nanocp::api {

struct ParsedCall {
  std::string id = {};
  std::string name;
  std::string arguments;
};

struct ParsedAnswer {
  std::string content;
  std::string reasoning;
  std::vector<ParsedCall> calls;
  int num_open_escapes = 0;   // deltas that end within a JSON escape
  std::string problems = {};  // rules that deltas broke

  // For comparisons and messages; ids are left out.
  std::string str() const {
    nlohmann::ordered_json json = {{"content", content}, {"reasoning", reasoning}};
    for (const ParsedCall& call : calls) json["calls"].push_back({call.name, call.arguments});
    if (!problems.empty()) json["problems"] = problems;
    return json.dump();
  }
};

inline bool ends_within_escape(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (text[i] != '\\') {
      ++i;
      continue;
    }
    i += i + 1 < text.size() && text[i + 1] == 'u' ? 6 : 2;
  }
  return i > text.size();
}

inline void add_delta(const OutputDelta& delta, ParsedAnswer& answer) {
  const auto require = [&answer](bool holds, const char* rule) {
    if (!holds) answer.problems.append(rule).append("; ");
  };
  answer.content += delta.content;
  answer.reasoning += delta.reasoning_content;
  for (const ToolCallDelta& call : delta.tool_calls) {
    if (!call.id.empty()) {
      require(static_cast<size_t>(call.index) == answer.calls.size(), "calls come in order");
      require(!call.name.empty(), "the first delta has a name");
      answer.calls.push_back({.id = call.id, .name = call.name, .arguments = {}});
    } else {
      require(static_cast<size_t>(call.index) + 1 == answer.calls.size(), "one call at a time");
      require(call.name.empty() && !call.arguments.empty(), "then come arguments alone");
    }
    answer.calls.back().arguments += call.arguments;
    // Throws if a character is cut.
    require(!nlohmann::json(call.arguments).dump().empty(), "valid UTF-8");
  }
}

// `next(rest)` says how many bytes of the rest are the next push; whole characters are pushed.
template <typename Next>
ParsedAnswer parse_in_pieces(const OutputParserOptions& options, std::string_view text, Next next) {
  const auto parser = make_output_parser(options);
  ParsedAnswer answer;
  while (!text.empty()) {
    size_t size = std::min<size_t>(next(text.size()), text.size());
    while (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) ++size;
    const OutputDelta delta = parser->push(text.substr(0, size));
    add_delta(delta, answer);
    text.remove_prefix(size);
    if (delta.tool_calls.empty() || text.empty()) continue;
    answer.num_open_escapes += ends_within_escape(answer.calls.back().arguments) ? 1 : 0;
  }
  add_delta(parser->flush(), answer);
  if (!parser->flush().empty()) answer.problems += "the end comes once; ";
  if (parser->has_tool_calls() == answer.calls.empty()) answer.problems += "has_tool_calls; ";
  return answer;
}

inline ParsedAnswer parse_answer(const OutputParserOptions& options, std::string_view text) {
  const ParsedAnswer whole = parse_in_pieces(options, text, [](size_t size) { return size; });
  ParsedAnswer bytes = parse_in_pieces(options, text, [](size_t) { return size_t{1}; });
  std::string problems;
  const auto compare = [&](const ParsedAnswer& cut) {
    if (cut.str() != whole.str()) {
      problems.append("a cut gives ").append(cut.str()).append(" for ").append(whole.str());
    }
    for (size_t i = 0; i < std::min(cut.calls.size(), whole.calls.size()); ++i) {
      if (cut.calls[i].id != whole.calls[i].id) problems.append("a cut changes an id; ");
    }
  };
  compare(bytes);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    compare(parse_in_pieces(options, text, [&](size_t) {
      return static_cast<size_t>(random.between(1, seed % 2 == 0 ? 5 : 40));
    }));
  }
  bytes.problems.append(problems);
  return bytes;
}

inline OutputParserOptions with_calls(ToolCallFormat calls,
                                      ReasoningFormat reasoning = ReasoningFormat::kNone) {
  OutputParserOptions options;
  options.format = {.reasoning = reasoning, .tool_calls = calls};
  options.tool_choice = ToolChoice::kAuto;
  options.id_seed = 7;
  return options;
}

}  // namespace nanocp::api
