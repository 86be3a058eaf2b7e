// Files as the loader needs them: mapped read-only, or small ones read whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace nanocp::model {

// Owns a read-only mapping of a regular file. Immutable; any thread may read the bytes. A file that
// is shortened by somebody else while it is mapped ends the process (SIGBUS), as with any mapping.
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_bytes_}; }
  const std::string& name() const { return name_; }

 private:
  MappedFile(const uint8_t* data, size_t size_bytes, std::string name)
      : data_(data), size_bytes_(size_bytes), name_(std::move(name)) {}

  const uint8_t* data_;
  size_t size_bytes_;
  std::string name_;
};

// The path as it appears in messages.
std::string display_name(const std::filesystem::path& path);

// The whole file. One that is not a regular file, or larger than `size_bytes_max`, is an error.
Result<std::string> read_text_file(const std::filesystem::path& path, int64_t size_bytes_max);

}  // namespace nanocp::model
