// Pages in a headless browser (package chromium), for tests that are skipped where there is none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "program.h"

namespace nanocp::tests {

// Ends by itself once `virtual_time_ms` of the page's clock are over. Requires:
// has_program(program); `folder` outlives it.
struct Browser {
  const TempFolder& folder;  // of its profile
  std::string program = "chromium";
  int virtual_time_ms = 5000;

  // In a window of that width, at least 500: it has no smaller ones. More arguments are --dump-dom
  // or --screenshot=FILE.
  ProgramResult open(const std::string& file, int width,
                     const std::vector<std::string>& more) const;
};

// Width and height of a PNG file; nothing when it is none.
std::optional<std::pair<uint32_t, uint32_t>> png_size(const std::string& bytes);

}  // namespace nanocp::tests
