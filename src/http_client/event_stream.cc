#include "http_client/event_stream.h"

#include <algorithm>

namespace nanocp::http_client {

bool EventStream::take_line() {
  if (line_.empty()) return has_data_;
  constexpr std::string_view kField = "data";
  std::string_view rest = line_;
  if (rest.starts_with(kField) && (rest.size() == kField.size() || rest[kField.size()] == ':')) {
    rest.remove_prefix(std::min(rest.size(), kField.size() + 1));
    if (rest.starts_with(' ')) rest.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += rest;
    has_data_ = true;
  }
  line_.clear();
  return false;
}

}  // namespace nanocp::http_client
