// How commands report what went wrong: one line on stderr, exit code 1.
#pragma once

#include "base/result.h"

namespace nanocp::apps {

// Prints "error: MESSAGE" and returns the exit code.
int report_error(const Error& error);

}  // namespace nanocp::apps
