// Flags of a command from a TOML file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"

namespace nanocp::apps {

// Gives each option that the file names its value, unless the command line has. A key is a flag
// without its dashes: `max-model-len = 4096`. Requires: the command line has been parsed.
Status apply_flag_file(CLI::App& command, const std::string& file);

}  // namespace nanocp::apps
