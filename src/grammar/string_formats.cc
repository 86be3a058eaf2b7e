#include "grammar/string_formats.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <vector>

namespace nanocp::grammar {
namespace {

struct Format {
  std::string_view name;
  std::string pattern;
};

// February ends on the 28th, for there are years that have no 29th.
constexpr std::string_view kDate =
    "[12]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"
    "02-(0[1-9]|1\\d|2[0-8]))";
constexpr std::string_view kTime =
    "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
constexpr std::string_view kHours =
    "(\\d{1,3}H(\\d{1,3}M(\\d{1,3}S)?)?|\\d{1,3}M(\\d{1,3}S)?|\\d{1,3}S)";
constexpr std::string_view kDays =
    "(\\d{1,3}Y(\\d{1,3}M(\\d{1,3}D)?)?|\\d{1,3}M(\\d{1,3}D)?|\\d{1,3}D)";
constexpr std::string_view kLabel = "[A-Za-z0-9]([A-Za-z0-9-]{0,28}[A-Za-z0-9])?";
constexpr std::string_view kAtom = "[A-Za-z0-9_%+-]{1,16}";
constexpr std::string_view kByte = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
constexpr std::string_view kPath = "[A-Za-z0-9._~!$&'()*+,;=:@-]{0,64}";

std::string join(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out += part;
  return out;
}

std::string ipv6() {
  constexpr std::string_view kGroup = "[0-9a-fA-F]{1,4}";
  return join({"((",        kGroup, ":){7}",    kGroup, "|(",        kGroup, ":){1,7}:|(", kGroup,
               ":){1,6}:",  kGroup, "|(",       kGroup, ":){1,5}(:", kGroup, "){1,2}|(",   kGroup,
               ":){1,4}(:", kGroup, "){1,3}|(", kGroup, ":){1,3}(:", kGroup, "){1,4}|:(:", kGroup,
               "){1,6}|::)"});
}

const std::vector<Format>& formats() {
  const auto whole = [](std::initializer_list<std::string_view> parts) {
    return "^(" + join(parts) + ")$";
  };
  static const std::vector<Format> kFormats = {
      {"date", whole({kDate})},
      {"time", whole({kTime})},
      {"date-time", whole({kDate, "T", kTime})},
      {"duration", whole({"P", kDays, "(T", kHours, ")?|PT", kHours, "|P\\d{1,3}W"})},
      {"email", whole({kAtom, "(\\.", kAtom, "){0,2}@", kLabel, "(\\.", kLabel, "){1,3}"})},
      {"hostname", whole({kLabel, "(\\.", kLabel, "){0,5}"})},
      {"ipv4", whole({kByte, "(\\.", kByte, "){3}"})},
      {"ipv6", whole({ipv6()})},
      {"uuid", whole({"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"})},
      {"uri", whole({"https?://", kLabel, "(\\.", kLabel, "){0,4}(:[1-9]\\d{0,3})?(/", kPath,
                     "){0,8}(\\?[A-Za-z0-9._~=&+-]{0,128})?(#[A-Za-z0-9._~-]{0,64})?"})},
  };
  return kFormats;
}

// What they ask for is not how the string is written.
constexpr std::string_view kFree[] = {"password",       "binary",   "path",     "file-path",
                                      "directory-path", "textarea", "markdown", "text"};

}  // namespace

bool is_free_format(std::string_view format) {
  return std::find(std::begin(kFree), std::end(kFree), format) != std::end(kFree);
}

std::optional<std::string> format_pattern(std::string_view format) {
  if (is_free_format(format)) return "";
  for (const Format& known : formats()) {
    if (known.name == format) return known.pattern;
  }
  return std::nullopt;
}

std::string format_names() {
  std::string names;
  for (const Format& format : formats()) {
    if (!names.empty()) names += ", ";
    names += format.name;
  }
  return names;
}

}  // namespace nanocp::grammar
