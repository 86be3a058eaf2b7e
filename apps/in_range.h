// A range check for flags that leaves the limits out of --help, where they are noise.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

template <typename T>
CLI::Validator in_range(T low, T high) {
  return CLI::Range(low, high).description("");
}

}  // namespace nanocp::apps
