// Server-sent events out of bytes that come in pieces of any size (WHATWG HTML, section 9.2). Only
// the data of an event is kept: names, ids and retry times do not occur in OpenAI's streams. One
// thread at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nanocp::http_client {

class EventStream {
 public:
  static constexpr size_t kEventBytesMax = size_t{16} << 20;

  // Calls `on_event(std::string_view data)` for each event that these bytes complete. False: an
  // event is larger than kEventBytesMax, and the stream is of no use any more.
  template <typename OnEvent>
  bool push(std::string_view bytes, const OnEvent& on_event) {
    while (!bytes.empty()) {
      const size_t end = bytes.find_first_of("\r\n");
      line_ += bytes.substr(0, end);
      if (line_.size() + data_.size() > kEventBytesMax) return false;
      if (end == std::string_view::npos) {
        // A line feed that begins the next piece belongs to a carriage return only if that ends
        // this one.
        after_return_ = false;
        return true;
      }
      const bool is_second_half = after_return_ && end == 0 && bytes[0] == '\n';
      after_return_ = bytes[end] == '\r';
      bytes.remove_prefix(end + 1);
      if (is_second_half) continue;
      if (take_line()) {
        on_event(std::string_view(data_));
        data_.clear();
        has_data_ = false;
      }
    }
    return true;
  }

  // Whether an event has begun and not ended.
  bool is_inside_event() const { return has_data_ || !line_.empty(); }

 private:
  // True: the line was empty and ends an event that has data.
  bool take_line();

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_return_ = false;
};

}  // namespace nanocp::http_client
