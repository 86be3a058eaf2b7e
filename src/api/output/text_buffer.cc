#include "api/output/text_buffer.h"

#include <algorithm>

namespace nanocp::api {

void TextBuffer::skip_leading(std::string_view characters) {
  const std::string_view text = view();
  consume(std::min(text.find_first_not_of(characters), text.size()));
}

Read starts_with(const TextBuffer& buffer, std::string_view marker) {
  const std::string_view text = buffer.view();
  if (text.starts_with(marker)) return Read::kDone;
  return !buffer.ended() && marker.starts_with(text) ? Read::kMore : Read::kReject;
}

MarkerSearch find_marker(const TextBuffer& buffer, std::span<const std::string_view> markers) {
  const std::string_view text = buffer.view();
  MarkerSearch best{.position = text.size()};
  size_t best_size = 0;
  for (size_t i = 0; i < markers.size(); ++i) {
    const size_t position = text.find(markers[i]);
    if (position == std::string_view::npos || position > best.position) continue;
    if (position == best.position && markers[i].size() <= best_size) continue;
    best = {.position = position, .index = i};
    best_size = markers[i].size();
  }
  if (best.index || buffer.ended()) return best;
  for (const std::string_view marker : markers) {
    for (size_t size = std::min(marker.size() - 1, text.size()); size > 0; --size) {
      if (!text.ends_with(marker.substr(0, size))) continue;
      best.position = std::min(best.position, text.size() - size);
      break;
    }
  }
  return best;
}

size_t trailing(std::string_view text, std::string_view characters) {
  const size_t last = text.find_last_not_of(characters);
  const size_t run = last == std::string_view::npos ? text.size() : text.size() - last - 1;
  return std::min(run, kTrimmedBytesMax);
}

std::string_view trimmed(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kWhiteSpace), text.size()));
  return text.substr(0, text.find_last_not_of(kWhiteSpace) + 1);
}

}  // namespace nanocp::api
