// The limit on open files of this process, which connections count towards.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace nanocp::apps {

// Raises the limit as far as is allowed without privileges. Fails where `num_files`, and some for
// the program itself, do not fit.
inline Status allow_open_files(int64_t num_files) {
  constexpr int64_t kNumOwnFiles = 64;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return ok_status();  // opening will tell
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const bool fits = limit.rlim_max == RLIM_INFINITY ||
                    static_cast<uint64_t>(num_files + kNumOwnFiles) <= limit.rlim_max;
  if (fits) return ok_status();
  return resource_exhausted(std::to_string(num_files) + " connections need more open files than " +
                            std::to_string(limit.rlim_max) + "; raise the limit (ulimit -n)");
}

}  // namespace nanocp::apps
