// The element types a safetensors file may name, and plain conversions to float32.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tensor/weight.h"

namespace nanocp::model {

enum class StoredType {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF4,
  kF6E2m3,
  kF6E3m2,
  kF8E4m3,
  kF8E5m2,
  kF8E8m0,
  kF16,
  kBf16,
  kF32,
  kF64,
  kC64,
};

const char* to_string(StoredType type);
int64_t bits_per_value(StoredType type);
std::optional<StoredType> stored_type_from_name(std::string_view name);

// The types a weight matrix without scales may have: F32, F16, BF16.
std::optional<tensor::WeightFormat> plain_weight_format(StoredType type);

// `count` values at `bytes`, in any alignment. Requires: type is F32, F16 or BF16.
std::vector<float> to_floats(StoredType type, std::span<const uint8_t> bytes, int64_t count);

}  // namespace nanocp::model
