#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja/operations.h"
#include "text/unicode.h"

namespace nanocp::text::jinja {
namespace {

// repr(float): the shortest digits that read back, in Python's layout.
std::string float_text(double value, bool is_json) {
  if (std::isnan(value)) return is_json ? "NaN" : "nan";
  if (std::isinf(value)) {
    const std::string name = is_json ? "Infinity" : "inf";
    return value < 0 ? "-" + name : name;
  }
  std::array<char, 64> buffer;
  // Python writes exponents from 1e16 up and below 1e-4.
  const double magnitude = std::fabs(value);
  const bool is_plain = magnitude == 0.0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto format = is_plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format);
  std::string text(buffer.data(), result.ptr);
  if (is_plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append_unicode_escape(char32_t c, std::string& out) {
  std::array<char, 16> buffer;
  const auto unit = [&](unsigned value) {
    std::snprintf(buffer.data(), buffer.size(), "\\u%04x", value);
    out.append(buffer.data());
  };
  if (c < 0x10000) return unit(static_cast<unsigned>(c));
  unit(0xd800U + static_cast<unsigned>((c - 0x10000) >> 10));
  unit(0xdc00U + static_cast<unsigned>((c - 0x10000) & 0x3ff));
}

// Where only `limit` bytes may be printed, a shared part of a value may not be printed again and
// again without end: each piece is charged as it is appended.
class Printer {
 public:
  Printer(Meter& meter, bool is_json, const JsonFormat& format)
      : meter_(meter), is_json_(is_json), format_(format) {}

  std::string take() { return std::move(out_); }

  void print(const Value& value, int64_t level) {
    meter_.step();
    const size_t before = out_.size();
    if (value.is_list()) return print_list(value.list(), level);
    if (value.is_dict()) return print_dict(value.dict(), level);
    print_scalar(value);
    charge(before);
  }

 private:
  void charge(size_t before) {
    meter_.touch(out_.size() - before);
    meter_.allocate(out_.size() - before);
  }

  void print_scalar(const Value& value) {
    if (value.is_none()) {
      out_ += is_json_ ? "null" : "None";
    } else if (value.is_bool()) {
      const bool truth = value.boolean();
      out_ += is_json_ ? (truth ? "true" : "false") : (truth ? "True" : "False");
    } else if (value.is_integer()) {
      out_ += std::to_string(value.integer());
    } else if (value.is_float()) {
      out_ += float_text(value.number(), is_json_);
    } else if (value.is_string()) {
      is_json_ ? print_json_string(value.string()) : print_python_string(value.string());
    } else if (is_json_) {
      fail("Object of type " + std::string(value.type_name()) + " is not JSON serializable");
    } else if (value.is_undefined()) {
      out_ += "Undefined";
    } else {
      out_.append("<").append(value.type_name()).append(">");
    }
  }

  void print_json_string(const std::string& text) {
    out_ += '"';
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f";
      constexpr std::string_view kNames = "\"\\nrtbf";
      if (const size_t found = kSpecial.find(c); found != std::string_view::npos) {
        out_.append("\\").push_back(kNames[found]);
      } else if (static_cast<uint8_t>(c) < 0x20) {
        append_unicode_escape(static_cast<char32_t>(c), out_);
      } else if (format_.ensure_ascii && static_cast<uint8_t>(c) >= 0x7f) {
        const Utf8Step step = next_utf8(text, i);
        c == 0x7f ? out_.push_back(c) : append_unicode_escape(step.code_point, out_);
        i += step.length - 1;
      } else {
        out_.push_back(c);
      }
    }
    out_ += '"';
  }

  void print_python_string(const std::string& text) {
    const bool doubled =
        text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
    const char quote = doubled ? '"' : '\'';
    out_ += quote;
    for (const char c : text) {
      constexpr std::string_view kSpecial = "\\\n\r\t";
      constexpr std::string_view kNames = "\\nrt";
      if (const size_t found = kSpecial.find(c); found != std::string_view::npos) {
        out_.append("\\").push_back(kNames[found]);
      } else if (c == quote) {
        out_.append("\\").push_back(c);
      } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
        std::array<char, 8> buffer;
        std::snprintf(buffer.data(), buffer.size(), "\\x%02x", static_cast<unsigned>(c));
        out_.append(buffer.data());
      } else {
        out_.push_back(c);
      }
    }
    out_ += quote;
  }

  void new_line(int64_t level) {
    out_ += '\n';
    out_.append(static_cast<size_t>(std::min<int64_t>(format_.indent * level, 1024)), ' ');
  }

  // `print_one` prints the element at an index.
  template <typename PrintOne>
  void print_elements(char open, char close, size_t count, int64_t level, PrintOne print_one) {
    const size_t before = out_.size();
    out_ += open;
    const bool indented = is_json_ && format_.indent >= 0 && count > 0;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_ += is_json_ ? format_.item_separator : ", ";
      if (indented) new_line(level + 1);
      print_one(i);
    }
    if (indented) new_line(level);
    out_ += close;
    meter_.allocate(out_.size() > before ? count * 2 : 0);
  }

  void print_list(const List& items, int64_t level) {
    print_elements('[', ']', items.size(), level, [&](size_t i) { print(items[i], level + 1); });
  }

  void print_dict(const Dict& items, int64_t level) {
    std::vector<size_t> order(items.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (format_.sort_keys) {
      meter_.step(static_cast<int64_t>(items.size()) * 8);
      std::sort(order.begin(), order.end(),
                [&](size_t a, size_t b) { return items[a].first < items[b].first; });
    }
    print_elements('{', '}', items.size(), level, [&](size_t i) {
      const auto& [key, value] = items[order[i]];
      const size_t before = out_.size();
      is_json_ ? print_json_string(key) : print_python_string(key);
      out_ += is_json_ ? format_.key_separator : ": ";
      charge(before);
      print(value, level + 1);
    });
  }

  Meter& meter_;
  bool is_json_;
  const JsonFormat& format_;
  std::string out_;
};

}  // namespace

std::string to_text(const Value& value, Meter& meter) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return {};
  const JsonFormat format;
  Printer printer(meter, false, format);
  printer.print(value, 0);
  return printer.take();
}

std::string to_json(const Value& value, const JsonFormat& format, Meter& meter) {
  Printer printer(meter, true, format);
  printer.print(value, 0);
  return printer.take();
}

}  // namespace nanocp::text::jinja
