#include "apps/report_page.h"

#include <map>
#include <string_view>

#include "chart/svg.h"
#include "chart/theme.h"

namespace nanocp::apps {

// Generated from report_page.html at build time.
extern const std::string_view kReportPageTemplate;

namespace {

// JSON that may stand in a script element: nothing in it can close the element or open a comment.
std::string script_json(const nlohmann::json& data) {
  const std::string text = data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string report_page(const ReportPage& page) {
  const std::map<std::string_view, std::string> values = {
      {"title", chart::escaped(page.title)},
      {"light", chart::css_variables(chart::Theme::kLight)},
      {"dark", chart::css_variables(chart::Theme::kDark)},
      {"charts", chart::chart_css()},
      {"body", page.body},
      {"data", script_json(page.data)}};
  const std::string_view text = kReportPageTemplate;
  std::string out;
  size_t begin = 0;
  // Names stand as {{name}}. What is filled in is not looked at again.
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

}  // namespace nanocp::apps
