#include "http/request_id.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <random>

#include "base/random.h"

namespace nanocp::http {
namespace {

constexpr size_t kIdLengthMax = 128;

Random seeded_random() {
  std::random_device device;
  return Random((static_cast<uint64_t>(device()) << 32) ^ device());
}

}  // namespace

std::string make_request_id() {
  thread_local Random random = seeded_random();
  std::array<char, 33> text = {};
  std::snprintf(text.data(), text.size(), "%016llx%016llx",
                static_cast<unsigned long long>(random.next()),
                static_cast<unsigned long long>(random.next()));
  return {text.data(), text.size() - 1};
}

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= kIdLengthMax && std::all_of(id.begin(), id.end(), [](char c) {
    const bool is_word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return is_word || std::string_view("._-:/+=").find(c) != std::string_view::npos;
  });
}

}  // namespace nanocp::http
