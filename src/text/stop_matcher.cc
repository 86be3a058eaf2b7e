#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace nanocp::text {
namespace {

std::vector<size_t> make_borders(const std::string& text) {
  std::vector<size_t> border(text.size() + 1, 0);
  size_t length = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = border[length];
    if (text[i] == text[length]) ++length;
    border[i + 1] = length;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stop_strings) {
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    if (stop_strings[i].empty()) continue;
    patterns_.push_back({stop_strings[i], i, make_borders(stop_strings[i])});
  }
}

// Requires: not yet matched, so progress < text.size().
void StopMatcher::Pattern::advance(char byte) {
  while (progress > 0 && text[progress] != byte) progress = border[progress];
  if (text[progress] == byte) ++progress;
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  for (const char byte : text) {
    held_.push_back(byte);
    const Pattern* complete = nullptr;
    for (Pattern& pattern : patterns_) {
      pattern.advance(byte);
      if (pattern.progress < pattern.text.size()) continue;
      if (complete == nullptr || pattern.text.size() > complete->text.size()) complete = &pattern;
    }
    if (complete != nullptr) {
      matched_ = complete->index;
      held_.resize(held_.size() - complete->text.size());
      return std::exchange(held_, {});
    }
  }
  size_t undecided = 0;
  for (const Pattern& pattern : patterns_) undecided = std::max(undecided, pattern.progress);
  std::string shown = held_.substr(0, held_.size() - undecided);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::flush() {
  return std::exchange(held_, {});
}

}  // namespace nanocp::text
