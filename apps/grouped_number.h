// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace nanocp::apps {

// 1234567 as "1,234,567".
inline std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  for (auto i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3) {
    text.insert(static_cast<size_t>(i), 1, ',');
  }
  return text;
}

}  // namespace nanocp::apps
