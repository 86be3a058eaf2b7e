#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "text/jinja/limits.h"
#include "text/jinja/template_error.h"
#include "text/unicode.h"

namespace nanocp::text::jinja {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

// Line ends become "\n", and one at the very end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
      continue;
    }
    out.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), rest_(source_) {}

  std::vector<Token> run() {
    while (!rest_.empty()) {
      const size_t tag = find_tag();
      const std::string_view text = rest_.substr(0, tag);
      if (tag == rest_.size()) {
        add_text(text);
        break;
      }
      add_text(before_tag(text, rest_.substr(tag)));
      advance(tag);
      line_starting_ = false;
      if (rest_[1] == '#') {
        skip_comment();
      } else if (!read_raw()) {
        read_tag();
      }
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }
  void add_text(std::string_view text) {
    if (!text.empty()) add(Token::Kind::kText, std::string(text));
  }

  void advance(size_t count) {
    line_ += static_cast<int32_t>(std::count(rest_.begin(), rest_.begin() + count, '\n'));
    rest_.remove_prefix(count);
  }

  [[noreturn]] void fail_at(const std::string& message) const {
    throw TemplateError(TemplateError::Kind::kSyntax,
                        "line " + std::to_string(line_) + ": " + message);
  }

  size_t find_tag() const {
    for (size_t at = rest_.find('{'); at != std::string_view::npos; at = rest_.find('{', at + 1)) {
      const char next = at + 1 < rest_.size() ? rest_[at + 1] : ' ';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return rest_.size();
  }

  // `text` as it is printed before `tag`.
  std::string_view before_tag(std::string_view text, std::string_view tag) const {
    const char sign = tag.size() > 2 ? tag[2] : ' ';
    if (sign == '-') {
      while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
      return text;
    }
    if (sign == '+' || tag[1] == '{') return text;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if (line == 0 && !line_starting_) return text;
    const bool blank = text.find_first_not_of(" \t", line) == std::string_view::npos;
    return blank ? text.substr(0, line) : text;
  }

  // After the end of a tag that starts with `sign`: - takes all white space along, and a block's
  // end takes the end of the line unless the sign is +.
  void after_tag(char sign, bool is_block) {
    size_t count = 0;
    if (sign == '-') {
      while (count < rest_.size() && is_blank(rest_[count])) ++count;
    } else if (sign != '+' && is_block && rest_.starts_with('\n')) {
      count = 1;
    }
    line_starting_ = count > 0 && rest_[count - 1] == '\n';
    advance(count);
  }

  void skip_comment() {
    const size_t end = rest_.find("#}", 2);
    if (end == std::string_view::npos) fail_at("a comment has no end");
    const char sign = rest_[end - 1];
    advance(end + 2);
    after_tag(sign, true);
  }

  // The end of {% NAME %} at `position` of the rest, with its signs, if that is what stands there.
  struct PlainBlock {
    size_t size;
    char first_sign;
    char last_sign;
  };
  std::optional<PlainBlock> plain_block(size_t position, std::string_view name) const {
    std::string_view text = rest_.substr(position);
    if (!text.starts_with("{%")) return std::nullopt;
    PlainBlock block{2, ' ', ' '};
    const auto skip_blank = [&] {
      while (block.size < text.size() && is_blank(text[block.size])) ++block.size;
    };
    const auto sign = [&]() -> char {
      if (block.size >= text.size()) return ' ';
      const char c = text[block.size];
      if (c != '-' && c != '+') return ' ';
      ++block.size;
      return c;
    };
    block.first_sign = sign();
    skip_blank();
    if (!text.substr(block.size).starts_with(name)) return std::nullopt;
    block.size += name.size();
    skip_blank();
    block.last_sign = sign();
    if (!text.substr(block.size).starts_with("%}")) return std::nullopt;
    block.size += 2;
    return block;
  }

  bool read_raw() {
    const auto begin = plain_block(0, "raw");
    if (!begin) return false;
    advance(begin->size);
    after_tag(begin->last_sign, true);
    for (size_t at = rest_.find("{%"); at != std::string_view::npos;
         at = rest_.find("{%", at + 1)) {
      const auto end = plain_block(at, "endraw");
      if (!end) continue;
      add_text(before_tag(rest_.substr(0, at), rest_.substr(at)));
      advance(at + end->size);
      after_tag(end->last_sign, true);
      return true;
    }
    fail_at("raw has no endraw");
  }

  void read_tag() {
    const bool is_block = rest_[1] == '%';
    add(is_block ? Token::Kind::kBlockBegin : Token::Kind::kPrintBegin, "");
    advance(2);
    if (!rest_.empty() && (rest_[0] == '-' || rest_[0] == '+')) advance(1);
    const std::string_view end = is_block ? "%}" : "}}";
    std::string open;  // brackets that are not closed yet
    while (true) {
      while (!rest_.empty() && is_blank(rest_[0])) advance(1);
      if (rest_.empty()) fail_at("a tag has no end");
      const char sign = rest_[0] == '-' || rest_[0] == '+' ? rest_[0] : ' ';
      const std::string_view after_sign = rest_.substr(sign == ' ' ? 0 : 1);
      if (open.empty() && after_sign.starts_with(end) && !(sign == '+' && !is_block)) {
        add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kPrintEnd, "");
        advance(sign == ' ' ? 2 : 3);
        after_tag(sign, is_block);
        return;
      }
      read_token(open);
    }
  }

  void read_token(std::string& open) {
    const char c = rest_[0];
    if (is_name_start(c)) return read_name();
    if (is_digit(c)) return read_number();
    if (c == '"' || c == '\'') return read_string();
    constexpr std::array<std::string_view, 25> kOperators = {
        "//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ",",  ":",  "|",  "(", ")", "[", "]", "{", "}"};
    for (const std::string_view op : kOperators) {
      if (!rest_.starts_with(op)) continue;
      if (c == '(' || c == '[' || c == '{') open.push_back(c);
      if (c == ')' || c == ']' || c == '}') {
        const char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (open.empty() || open.back() != wanted) fail_at(std::string("unexpected '") + c + "'");
        open.pop_back();
      }
      add(Token::Kind::kOperator, std::string(op));
      return advance(op.size());
    }
    fail_at("unexpected character in a tag");
  }

  void read_name() {
    size_t size = 1;
    while (size < rest_.size() && (is_name_start(rest_[size]) || is_digit(rest_[size]))) ++size;
    add(Token::Kind::kName, std::string(rest_.substr(0, size)));
    advance(size);
  }

  void read_number() {
    size_t size = 0;
    std::string digits;
    const auto read_digits = [&] {
      while (size < rest_.size() && (is_digit(rest_[size]) || rest_[size] == '_')) {
        if (rest_[size] != '_') digits.push_back(rest_[size]);
        ++size;
      }
    };
    read_digits();
    bool is_float = false;
    if (size + 1 < rest_.size() && rest_[size] == '.' && is_digit(rest_[size + 1])) {
      is_float = true;
      digits.push_back('.');
      ++size;
      read_digits();
    }
    const size_t exponent = size;
    if (size < rest_.size() && (rest_[size] == 'e' || rest_[size] == 'E')) {
      size_t at = size + 1;
      if (at < rest_.size() && (rest_[at] == '+' || rest_[at] == '-')) ++at;
      if (at < rest_.size() && is_digit(rest_[at])) {
        is_float = true;
        digits.append(rest_.substr(exponent, at - exponent));
        size = at;
        read_digits();
      }
    }
    add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, digits);
    advance(size);
  }

  void read_string() {
    const char quote = rest_[0];
    std::string out;
    size_t at = 1;
    while (true) {
      if (at >= rest_.size()) fail_at("a string has no end");
      const char c = rest_[at];
      if (c == quote) break;
      if (c != '\\') {
        out.push_back(c);
        ++at;
        continue;
      }
      if (at + 1 >= rest_.size()) fail_at("a string has no end");
      at += read_escape(rest_.substr(at), out);
    }
    add(Token::Kind::kString, std::move(out));
    advance(at + 1);
  }

  // Appends what the escape at the start of `text` stands for, and returns its size.
  size_t read_escape(std::string_view text, std::string& out) const {
    constexpr std::string_view kNames = "abfnrtv\\'\"";
    constexpr std::string_view kValues = "\a\b\f\n\r\t\v\\'\"";
    const char c = text[1];
    if (const size_t found = kNames.find(c); found != std::string_view::npos) {
      out.push_back(kValues[found]);
      return 2;
    }
    if (c == '\n') return 2;
    const size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (num_digits > 0) {
      append_utf8(code_point(text.substr(2, num_digits), num_digits), out);
      return 2 + num_digits;
    }
    if (c >= '0' && c <= '7') {
      size_t size = 1;
      char32_t value = 0;
      while (size < 4 && size < text.size() && text[size] >= '0' && text[size] <= '7') {
        value = value * 8 + static_cast<char32_t>(text[size++] - '0');
      }
      append_utf8(value, out);
      return size;
    }
    out.append(text.substr(0, 2));
    return 2;
  }

  char32_t code_point(std::string_view digits, size_t num_digits) const {
    uint64_t value = 0;
    for (const char c : digits) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      const size_t digit = kDigits.find(static_cast<char>(is_digit(c) ? c : c | 0x20));
      if (digit == std::string_view::npos) fail_at("a string has a broken escape");
      value = value * 16 + digit;
    }
    const bool valid = value < 0x110000 && !(value >= 0xd800 && value < 0xe000);
    if (digits.size() != num_digits || !valid) fail_at("a string has a broken escape");
    return static_cast<char32_t>(value);
  }

  std::string source_;
  std::string_view rest_;
  int32_t line_ = 1;
  bool line_starting_ = true;  // the last tag ended with the end of a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (static_cast<int64_t>(source.size()) > kTemplateBytesMax) {
    throw TemplateError(TemplateError::Kind::kSyntax,
                        "is larger than " + std::to_string(kTemplateBytesMax) + " bytes");
  }
  return Lexer(source).run();
}

}  // namespace nanocp::text::jinja
