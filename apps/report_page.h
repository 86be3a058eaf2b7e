// A page of results in one file: apps/report_page.html, filled in. It needs no other file and no
// network. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanocp::apps {

struct ReportPage {
  std::string title;
  std::string body;     // HTML
  nlohmann::json data;  // for the page's script; see the head of the template
};

std::string report_page(const ReportPage& page);

}  // namespace nanocp::apps
