#include "model/stored_type.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace nanocp::model {
namespace {

struct TypeInfo {
  StoredType type;
  std::string_view name;
  int64_t bits;
};

constexpr std::array kTypes = {
    TypeInfo{StoredType::kBool, "BOOL", 8},      TypeInfo{StoredType::kU8, "U8", 8},
    TypeInfo{StoredType::kI8, "I8", 8},          TypeInfo{StoredType::kU16, "U16", 16},
    TypeInfo{StoredType::kI16, "I16", 16},       TypeInfo{StoredType::kU32, "U32", 32},
    TypeInfo{StoredType::kI32, "I32", 32},       TypeInfo{StoredType::kU64, "U64", 64},
    TypeInfo{StoredType::kI64, "I64", 64},       TypeInfo{StoredType::kF4, "F4", 4},
    TypeInfo{StoredType::kF6E2m3, "F6_E2M3", 6}, TypeInfo{StoredType::kF6E3m2, "F6_E3M2", 6},
    TypeInfo{StoredType::kF8E4m3, "F8_E4M3", 8}, TypeInfo{StoredType::kF8E5m2, "F8_E5M2", 8},
    TypeInfo{StoredType::kF8E8m0, "F8_E8M0", 8}, TypeInfo{StoredType::kF16, "F16", 16},
    TypeInfo{StoredType::kBf16, "BF16", 16},     TypeInfo{StoredType::kF32, "F32", 32},
    TypeInfo{StoredType::kF64, "F64", 64},       TypeInfo{StoredType::kC64, "C64", 64},
};

const TypeInfo& info_of(StoredType type) {
  const TypeInfo& info = kTypes[static_cast<size_t>(type)];
  NANOCP_DCHECK(info.type == type);
  return info;
}

float float_from_half(uint16_t half) {
  const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
  const int exponent = (half >> 10) & 31;
  const auto mantissa = static_cast<float>(half & 1023);
  if (exponent == 31) return (half & 1023) != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024.0F + mantissa, exponent - 25);
}

}  // namespace

const char* to_string(StoredType type) {
  return info_of(type).name.data();
}
int64_t bits_per_value(StoredType type) {
  return info_of(type).bits;
}

std::optional<StoredType> stored_type_from_name(std::string_view name) {
  for (const TypeInfo& info : kTypes) {
    if (info.name == name) return info.type;
  }
  return std::nullopt;
}

std::optional<tensor::WeightFormat> plain_weight_format(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return tensor::WeightFormat::kF32;
    case StoredType::kF16:
      return tensor::WeightFormat::kF16;
    case StoredType::kBf16:
      return tensor::WeightFormat::kBf16;
    default:
      return std::nullopt;
  }
}

std::vector<float> to_floats(StoredType type, std::span<const uint8_t> bytes, int64_t count) {
  NANOCP_CHECK(plain_weight_format(type).has_value());
  NANOCP_CHECK_LE(count * bits_per_value(type) / 8, static_cast<int64_t>(bytes.size()));
  std::vector<float> values(static_cast<size_t>(count));
  if (type == StoredType::kF32) {
    if (count > 0) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t raw = 0;
    std::memcpy(&raw, bytes.data() + i * 2, 2);
    values[i] = type == StoredType::kBf16 ? std::bit_cast<float>(static_cast<uint32_t>(raw) << 16)
                                          : float_from_half(raw);
  }
  return values;
}

}  // namespace nanocp::model
