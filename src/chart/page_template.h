// Pages whose text has gaps, {{name}}. Pure functions, any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace nanocp::chart {

// `text` with the value of each name in its place, and nothing where there is none. Values are not
// looked at again, and must be escaped where they stand in markup.
std::string filled_page(std::string_view text,
                        const std::map<std::string_view, std::string>& values);

}  // namespace nanocp::chart
