#include "model/aligned_buffer.h"

#include <sys/mman.h>

#include <new>

namespace nanocp::model {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

}  // namespace

std::shared_ptr<uint8_t> make_aligned_buffer(int64_t size_bytes) {
  const bool is_large = size_bytes >= 4 * kHugePageBytes;
  const auto alignment =
      std::align_val_t{is_large ? static_cast<size_t>(kHugePageBytes) : kWeightAlignment};
  const size_t rounded = (static_cast<size_t>(size_bytes) + kWeightAlignment - 1) /
                         kWeightAlignment * kWeightAlignment;
  auto* data = static_cast<uint8_t*>(::operator new(rounded, alignment));
  // A hint: fewer page faults and address translations while streaming weights.
  if (is_large) static_cast<void>(::madvise(data, rounded, MADV_HUGEPAGE));
  return {data, [alignment](uint8_t* buffer) { ::operator delete(buffer, alignment); }};
}

}  // namespace nanocp::model
