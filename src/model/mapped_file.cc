#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "model/printable.h"

namespace nanocp::model {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

struct OpenedFile {
  FileDescriptor descriptor;
  size_t size_bytes = 0;
};

Error system_error(const std::string& name, const char* action) {
  const int code = errno;
  const std::string message = name + ": cannot " + action + ": " + std::strerror(code);
  if (code == ENOENT || code == ENOTDIR) return not_found(name + ": no such file");
  return {ErrorCode::kInternal, message};
}

Result<OpenedFile> open_regular_file(const std::filesystem::path& path) {
  const std::string name = display_name(path);
  // Without O_NONBLOCK a named pipe would block the open for ever.
  FileDescriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.get() < 0) return system_error(name, "open");
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) return system_error(name, "read the size");
  if (!S_ISREG(info.st_mode)) return invalid_argument(name + " is not a regular file");
  return OpenedFile{std::move(descriptor), static_cast<size_t>(info.st_size)};
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  NANOCP_ASSIGN_OR_RETURN(const OpenedFile file, open_regular_file(path));
  const std::string name = display_name(path);
  const uint8_t* data = nullptr;
  if (file.size_bytes > 0) {
    void* mapping =
        ::mmap(nullptr, file.size_bytes, PROT_READ, MAP_SHARED, file.descriptor.get(), 0);
    if (mapping == MAP_FAILED) return system_error(name, "map");
    data = static_cast<const uint8_t*>(mapping);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(data, file.size_bytes, name));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_bytes_);
}

std::string display_name(const std::filesystem::path& path) {
  return printable(path.string(), 400);
}

Result<std::string> read_text_file(const std::filesystem::path& path, int64_t size_bytes_max) {
  NANOCP_ASSIGN_OR_RETURN(const OpenedFile file, open_regular_file(path));
  if (std::cmp_greater(file.size_bytes, size_bytes_max)) {
    return invalid_argument(display_name(path) + " has " + std::to_string(file.size_bytes) +
                            " bytes; at most " + std::to_string(size_bytes_max) + " are read");
  }
  std::string text(file.size_bytes, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got = ::read(file.descriptor.get(), text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(display_name(path), "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace nanocp::model
