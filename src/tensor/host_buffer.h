// A large, zeroed piece of host memory that costs nothing until it is touched, in huge pages where
// the system grants them: streaming through small pages loses a tenth of the bandwidth and more.
// Movable owner; any thread.
#pragma once

#include <cstddef>

namespace nanocp::tensor {

class HostBuffer {
 public:
  HostBuffer() = default;
  // Aborts when the address space is exhausted; callers check sizes against memory first.
  explicit HostBuffer(size_t size_bytes);
  ~HostBuffer();
  HostBuffer(HostBuffer&& other) noexcept;
  HostBuffer& operator=(HostBuffer&& other) noexcept;

  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void release();

  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace nanocp::tensor
