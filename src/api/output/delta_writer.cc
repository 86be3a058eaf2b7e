#include "api/output/delta_writer.h"

#include <utility>

#include "base/random.h"

namespace nanocp::api {
namespace {

constexpr std::string_view kIdCharacters =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
constexpr size_t kEscapeBytes = 6;  // \uXXXX

// Whether \uXXXX is the first half of a character beyond the first plane.
bool is_high_half(std::string_view escape) {
  const char second = escape[3];
  return (escape[2] == 'd' || escape[2] == 'D') &&
         (second == '8' || second == '9' || second == 'a' || second == 'A' || second == 'b' ||
          second == 'B');
}

}  // namespace

CallOptions call_options(const OutputParserOptions& options) {
  return {.id_seed = options.id_seed,
          .short_ids = options.format.tool_calls == ToolCallFormat::kMistral,
          .parallel = options.parallel_tool_calls};
}

std::string DeltaWriter::draw_id() const {
  std::string id = options_.short_ids ? "" : "call_";
  const size_t num_drawn = options_.short_ids ? 9 : 24;
  Random random(counter_random(options_.id_seed, static_cast<uint64_t>(num_calls_)));
  for (size_t i = 0; i < num_drawn; ++i) {
    id.push_back(kIdCharacters[random.below(kIdCharacters.size())]);
  }
  return id;
}

void DeltaWriter::begin_call(std::string name, std::string id) {
  dropped_ = !options_.parallel && num_calls_ > 0;
  has_text_ = false;
  if (dropped_) return;
  if (id.empty()) id = draw_id();
  delta_.tool_calls.push_back(
      {.index = num_calls_, .id = std::move(id), .name = std::move(name), .arguments = {}});
  ++num_calls_;
}

ToolCallDelta& DeltaWriter::current() {
  const int32_t index = num_calls_ - 1;
  if (delta_.tool_calls.empty() || delta_.tool_calls.back().index != index) {
    delta_.tool_calls.push_back({.index = index, .id = {}, .name = {}, .arguments = {}});
  }
  return delta_.tool_calls.back();
}

size_t DeltaWriter::whole_escapes() {
  for (; num_scanned_ < held_.size(); ++num_scanned_) {
    const char byte = held_[num_scanned_];
    if (escape_size_ == 0) {
      // A first half that no second one follows stands alone.
      if (low_half_ && byte != '\\') low_half_ = false;
      escape_size_ = byte == '\\' ? 1 : 0;
    } else if (escape_size_ == 1 && byte != 'u') {
      escape_size_ = 0;
      low_half_ = false;
    } else if (++escape_size_ == kEscapeBytes) {
      escape_size_ = 0;
      const size_t start = num_scanned_ + 1 - kEscapeBytes;
      low_half_ = !low_half_ && is_high_half(std::string_view(held_).substr(start, kEscapeBytes));
    }
    if (escape_size_ == 0 && !low_half_) num_whole_ = num_scanned_ + 1;
  }
  return num_whole_;
}

void DeltaWriter::arguments(std::string_view text) {
  if (dropped_ || text.empty()) return;
  has_text_ = true;
  held_.append(text);
  const size_t size = whole_escapes();
  if (size == 0) return;
  current().arguments.append(held_, 0, size);
  held_.erase(0, size);
  num_scanned_ -= size;
  num_whole_ = 0;
}

void DeltaWriter::end_call(bool complete) {
  if (!dropped_) {
    if (!has_text_ && complete) held_ = "{}";
    if (!held_.empty()) current().arguments.append(held_);
  }
  dropped_ = false;
  held_.clear();
  num_scanned_ = num_whole_ = escape_size_ = 0;
  low_half_ = false;
}

OutputDelta DeltaWriter::take() {
  return std::exchange(delta_, {});
}

}  // namespace nanocp::api
