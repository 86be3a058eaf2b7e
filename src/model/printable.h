// Text from files made fit for one-line messages. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nanocp::model {

// `text` with everything but printable ASCII escaped as \xNN, cut (with "...") after `length_max`
// characters of output.
std::string printable(std::string_view text, size_t length_max = 200);

// "[2, 3, 64]".
std::string describe_shape(std::span<const int64_t> shape);

}  // namespace nanocp::model
