#include "text/text_file.h"

#include <fstream>
#include <system_error>

namespace nanocp::text {

Result<std::string> read_text_file(const std::filesystem::path& path, int64_t size_bytes_max) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return not_found(path.string() + ": no such file");
  }
  const uintmax_t size_bytes = std::filesystem::file_size(path, error);
  if (error) return Error{ErrorCode::kInternal, path.string() + ": " + error.message()};
  if (size_bytes > static_cast<uintmax_t>(size_bytes_max)) {
    return invalid_argument(path.string() + ": larger than " + std::to_string(size_bytes_max) +
                            " bytes");
  }
  std::string content(size_bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size_bytes))) {
    return Error{ErrorCode::kInternal, path.string() + ": cannot be read"};
  }
  return content;
}

}  // namespace nanocp::text
