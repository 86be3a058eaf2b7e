#include "tensor/host_buffer.h"

#include <sys/mman.h>

#include <string>
#include <utility>

#include "base/check.h"

namespace nanocp::tensor {

HostBuffer::HostBuffer(size_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  data_ = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) {
    check_failed(__FILE__, __LINE__,
                 "no address space for " + std::to_string(size_bytes) + " bytes");
  }
  // Advice only: without huge pages everything works, slower.
  static_cast<void>(madvise(data_, size_bytes, MADV_HUGEPAGE));
}

HostBuffer::~HostBuffer() {
  release();
}

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  return *this;
}

void HostBuffer::release() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
}

}  // namespace nanocp::tensor
