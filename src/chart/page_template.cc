#include "chart/page_template.h"

namespace nanocp::chart {

std::string filled_page(std::string_view text,
                        const std::map<std::string_view, std::string>& values) {
  std::string out;
  size_t begin = 0;
  for (size_t open = text.find("{{"); open != std::string_view::npos;
       open = text.find("{{", begin)) {
    const size_t close = text.find("}}", open);
    if (close == std::string_view::npos) break;
    out += text.substr(begin, open - begin);
    const auto value = values.find(text.substr(open + 2, close - open - 2));
    if (value != values.end()) out += value->second;
    begin = close + 2;
  }
  out += text.substr(begin);
  return out;
}

}  // namespace nanocp::chart
