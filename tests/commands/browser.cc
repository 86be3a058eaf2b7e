#include "browser.h"

#include <unistd.h>

namespace nanocp::tests {

ProgramResult Browser::open(const std::string& file, int width,
                            const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"--headless",
                                        "--disable-gpu",
                                        "--disable-dev-shm-usage",
                                        "--hide-scrollbars",
                                        "--virtual-time-budget=" + std::to_string(virtual_time_ms),
                                        "--user-data-dir=" + folder.path().string() + "/profile",
                                        "--window-size=" + std::to_string(width) + ",1400"};
  if (geteuid() == 0) arguments.emplace_back("--no-sandbox");
  arguments.insert(arguments.end(), more.begin(), more.end());
  arguments.push_back("file://" + file);
  return run_other_program(program, arguments);
}

std::optional<std::pair<uint32_t, uint32_t>> png_size(const std::string& bytes) {
  if (bytes.size() < 24 || bytes.compare(1, 3, "PNG") != 0) return std::nullopt;
  const auto number = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
  };
  return std::pair(number(16), number(20));
}

}  // namespace nanocp::tests
