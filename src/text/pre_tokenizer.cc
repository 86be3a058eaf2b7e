#include "text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

namespace nanocp::text {
namespace {

using Pieces = std::vector<std::string_view>;

struct Cutter {
  std::string_view text;
  Pieces& pieces;
  SplitScratch& scratch;

  void operator()(SplitPattern pattern) const { nanocp::text::split(pattern, text, pieces); }
  void operator()(const RegexStep& step) const {
    step.regex.split(text, step.keep_gaps, pieces, scratch);
  }
  void operator()(const DelimiterStep& step) const {
    size_t begin = 0;
    while (begin < text.size()) {
      const size_t from =
          text.substr(begin).starts_with(step.delimiter) ? step.delimiter.size() : 0;
      const size_t end = std::min(text.find(step.delimiter, begin + from), text.size());
      pieces.push_back(text.substr(begin, end - begin));
      begin = end;
    }
  }
};

}  // namespace

std::string_view PreTokenizer::with_prefix(std::string_view text, bool at_start,
                                           Scratch& scratch) const {
  const Prefix& prefix = spec_.prefix;
  const bool replaces = !spec_.space_replacement.empty();
  if (prefix.text.empty() && !replaces) return text;
  std::string& out = scratch.text;
  out.clear();
  if (replaces) {
    for (const char c : text) {
      if (c == ' ') {
        out.append(spec_.space_replacement);
      } else {
        out.push_back(c);
      }
    }
  } else {
    out = text;
  }
  const bool wanted = !prefix.only_at_start || at_start;
  if (wanted && !out.starts_with(prefix.text)) out.insert(0, prefix.text);
  return out;
}

void PreTokenizer::split(std::string_view text, bool at_start, Pieces& pieces,
                         Scratch& scratch) const {
  pieces.clear();
  if (text.empty()) return;
  pieces.push_back(with_prefix(text, at_start, scratch));
  for (const SplitStep& step : spec_.steps) {
    std::swap(pieces, scratch.before);
    pieces.clear();
    for (const std::string_view piece : scratch.before) {
      std::visit(Cutter{piece, pieces, scratch.regex}, step);
    }
  }
}

}  // namespace nanocp::text
