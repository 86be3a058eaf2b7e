// Charts with their titles and captions, as pages of results show them. Pure functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "chart/svg.h"

namespace nanocp::apps {

struct Figure {
  std::string title;
  std::string caption;  // what to see in it
  std::string svg;
};

// The figures side by side.
inline std::string figures_html(const std::vector<Figure>& figures) {
  std::string out = "<div class=\"figures\">";
  for (const Figure& figure : figures) {
    chart::append(out, "<figure><h3>%s</h3>", chart::escaped(figure.title).c_str());
    out += figure.svg;
    chart::append(out, "<figcaption>%s</figcaption></figure>",
                  chart::escaped(figure.caption).c_str());
  }
  return out + "</div>";
}

}  // namespace nanocp::apps
