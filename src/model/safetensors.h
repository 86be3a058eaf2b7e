// The header of a safetensors file: 8 bytes little-endian header size, a JSON object that maps
// names to dtype, shape and byte range, then the data (github.com/huggingface/safetensors).
// Everything is checked here, so that later code may read the ranges without care.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/stored_type.h"

namespace nanocp::model {

constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;
constexpr size_t kTensorRankMax = 8;

struct TensorEntry {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // of the tensor's bytes, from the start of the file
  uint64_t end = 0;
};

// `file` is the whole file; only its header is read. Promises for each entry: unique name,
// begin <= end <= file.size(), end - begin = shape x size of the type, no overlap with another.
Result<std::vector<TensorEntry>> parse_safetensors(std::span<const uint8_t> file,
                                                   const std::string& file_name);

}  // namespace nanocp::model
