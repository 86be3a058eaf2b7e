#include "apps/command_error.h"

#include <cstdio>

namespace nanocp::apps {

int report_error(const Error& error) {
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", error.message.c_str());
  return 1;
}

}  // namespace nanocp::apps
