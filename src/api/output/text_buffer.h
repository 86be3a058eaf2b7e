// Text of an answer that has come and is not settled yet, and searches in it whose outcome does not
// depend on how much more has come. One parser owns one; views hold until the next push.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace nanocp::api {

constexpr std::string_view kWhiteSpace = " \t\r\n";
// Of white space before a marker, this much is held back to be dropped if the marker comes.
constexpr size_t kTrimmedBytesMax = 64;
// A call's name and what else comes before its arguments.
constexpr size_t kHeadBytesMax = 4096;

// What to do next.
enum class Read {
  kMore,    // undecided until more text comes; never at the end of the answer
  kDone,    // this part is over
  kReject,  // not what was expected; nothing was consumed
};

class TextBuffer {
 public:
  void push(std::string_view text) {
    data_.erase(0, position_);
    position_ = 0;
    data_.append(text);
  }
  // No more will come.
  void end() { ended_ = true; }
  bool ended() const { return ended_; }

  std::string_view view() const { return std::string_view(data_).substr(position_); }
  bool empty() const { return position_ == data_.size(); }
  void consume(size_t num_bytes) { position_ += num_bytes; }
  void skip_leading(std::string_view characters);

 private:
  std::string data_;
  size_t position_ = 0;
  bool ended_ = false;
};

// Whether the unread text starts with `marker`: kDone yes, kReject no.
Read starts_with(const TextBuffer& buffer, std::string_view marker);

struct MarkerSearch {
  size_t position = 0;               // before it there is no marker
  std::optional<size_t> index = {};  // of the marker that stands there; none: undecided or the end
};

// The first marker in the unread text, the longest of several at one place.
MarkerSearch find_marker(const TextBuffer& buffer, std::span<const std::string_view> markers);

// How many of the last bytes of `text` are of `characters`, at most kTrimmedBytesMax.
size_t trailing(std::string_view text, std::string_view characters);

// `text` without white space at its ends.
std::string_view trimmed(std::string_view text);

}  // namespace nanocp::api
