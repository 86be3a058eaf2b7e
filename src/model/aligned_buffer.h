// Memory for converted or made-up weights, aligned for vector loads.
#pragma once

#include <cstdint>
#include <memory>

namespace nanocp::model {

constexpr size_t kWeightAlignment = 64;

// At least `size_bytes`, a multiple of kWeightAlignment, contents undefined. Throws std::bad_alloc.
std::shared_ptr<uint8_t> make_aligned_buffer(int64_t size_bytes);

}  // namespace nanocp::model
