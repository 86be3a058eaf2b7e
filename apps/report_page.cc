#include "apps/report_page.h"

#include <string_view>

#include "chart/page_template.h"
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
  return chart::filled_page(kReportPageTemplate,
                            {{"title", chart::escaped(page.title)},
                             {"light", chart::css_variables(chart::Theme::kLight)},
                             {"dark", chart::css_variables(chart::Theme::kDark)},
                             {"charts", chart::chart_css()},
                             {"body", page.body},
                             {"data", script_json(page.data)}});
}

}  // namespace nanocp::apps
