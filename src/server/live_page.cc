#include "server/live_page.h"

#include <string_view>

#include "chart/page_template.h"
#include "chart/theme.h"

namespace nanocp::server {

// Generated from src/server/page at build time.
extern const std::string_view kPageHtml;
extern const std::string_view kPageCss;
extern const std::string_view kBasicsJs;
extern const std::string_view kClusterJs;
extern const std::string_view kChartsJs;
extern const std::string_view kTablesJs;
extern const std::string_view kChatJs;
extern const std::string_view kMainJs;

std::string live_page() {
  std::string script;
  for (const std::string_view part :
       {kBasicsJs, kClusterJs, kChartsJs, kTablesJs, kChatJs, kMainJs}) {
    script += part;
  }
  return chart::filled_page(kPageHtml, {{"light", chart::css_variables(chart::Theme::kLight)},
                                        {"dark", chart::css_variables(chart::Theme::kDark)},
                                        {"style", std::string(kPageCss)},
                                        {"script", script}});
}

}  // namespace nanocp::server
