// Pictures of SVG text, made by `rsvg-convert` (Debian: librsvg2-bin), which is looked for in PATH.
#pragma once

#include <string>

#include "base/result.h"

namespace nanocp::apps {

// Fails, naming the package, where the converter does not run: to be told before a long simulation.
Status check_png_converter();
// Fails where the converter does, or takes longer than a minute.
Status write_png(const std::string& file, const std::string& svg);

}  // namespace nanocp::apps
