#include "apps/trace_file.h"

#include <zlib.h>

#include <array>
#include <memory>

namespace nanocp::apps {
namespace {

constexpr size_t kBytesMax = size_t{1} << 31;  // of the text; a small file can hold a huge one

}  // namespace

Result<std::vector<sim::Arrival>> read_trace(const std::string& file) {
  // zlib hands out files that are not compressed as they are.
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> in(gzopen(file.c_str(), "rb"), &gzclose);
  if (!in) return not_found(file + ": cannot be read");
  std::string text;
  std::array<char, 1 << 16> buffer;
  int size = 0;
  while ((size = gzread(in.get(), buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<size_t>(size));
    if (text.size() > kBytesMax) return invalid_argument(file + ": more than 2 GiB of text");
  }
  int error = Z_OK;
  const char* message = gzerror(in.get(), &error);
  // A stream that ends too early is no error for gzread before the next call.
  if (size < 0 || error != Z_OK) {
    return invalid_argument(file + ": cannot be read" +
                            (error == Z_ERRNO ? "" : std::string(", ") + message));
  }
  return sim::parse_trace(text, file);
}

}  // namespace nanocp::apps
