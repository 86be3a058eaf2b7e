#include "model/safetensors.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "model/printable.h"
#include "model/safetensors_header.h"

namespace nanocp::model {
namespace {

constexpr uint64_t kPrefixBytes = 8;

std::string tensor_named(const std::string& name) {
  return "tensor \"" + printable(name) + "\"";
}

uint64_t read_little_endian(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kPrefixBytes; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

Result<std::string_view> find_header(std::span<const uint8_t> file, const std::string& file_name) {
  const std::string size_text = std::to_string(file.size());
  if (file.size() < kPrefixBytes) {
    return invalid_argument(file_name + " has only " + size_text +
                            " bytes, not even the 8 of a safetensors header size: truncated?");
  }
  const uint64_t header_bytes = read_little_endian(file);
  if (header_bytes > kSafetensorsHeaderBytesMax) {
    return invalid_argument(file_name + ": header of " + std::to_string(header_bytes) +
                            " bytes is above the limit of " +
                            std::to_string(kSafetensorsHeaderBytesMax) +
                            ": not a safetensors file?");
  }
  if (header_bytes > file.size() - kPrefixBytes) {
    return invalid_argument(file_name + ": header of " + std::to_string(header_bytes) +
                            " bytes does not fit in the file of " + size_text +
                            " bytes: truncated?");
  }
  return std::string_view(reinterpret_cast<const char*>(file.data()) + kPrefixBytes, header_bytes);
}

// Shape x type in bytes; an error where the product overflows or ends inside a byte.
Result<uint64_t> stored_bytes(const TensorEntry& tensor, const std::string& file_name) {
  uint64_t bits = static_cast<uint64_t>(bits_per_value(tensor.type));
  bool has_zero = false;
  for (const int64_t dim : tensor.shape) has_zero = has_zero || dim == 0;
  if (has_zero) return uint64_t{0};
  for (const int64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dim), &bits)) {
      return invalid_argument(file_name + ": " + tensor_named(tensor.name) + " of shape " +
                              describe_shape(tensor.shape) + " is too large to count its bytes");
    }
  }
  if (bits % 8 != 0) {
    return invalid_argument(file_name + ": " + tensor_named(tensor.name) + " of shape " +
                            describe_shape(tensor.shape) + " does not fill whole bytes of type " +
                            to_string(tensor.type));
  }
  return bits / 8;
}

// Checks one tensor against the file and turns its offsets into offsets from the file's start.
Status place_tensor(TensorEntry& tensor, const std::string& file_name, uint64_t data_begin,
                    uint64_t file_bytes) {
  const uint64_t data_bytes = file_bytes - data_begin;
  const std::string range =
      std::string("[") + std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + "]";
  if (tensor.begin > tensor.end) {
    return invalid_argument(file_name + ": " + tensor_named(tensor.name) + " has data_offsets " +
                            range + " that run backwards");
  }
  if (tensor.end > data_bytes) {
    return invalid_argument(file_name + ": " + tensor_named(tensor.name) + " has data_offsets " +
                            range + ", but the file holds " + std::to_string(data_bytes) +
                            " bytes of data: truncated?");
  }
  NANOCP_ASSIGN_OR_RETURN(const uint64_t wanted, stored_bytes(tensor, file_name));
  if (wanted != tensor.end - tensor.begin) {
    return invalid_argument(file_name + ": " + tensor_named(tensor.name) + " of type " +
                            to_string(tensor.type) + " and shape " + describe_shape(tensor.shape) +
                            " needs " + std::to_string(wanted) + " bytes, but data_offsets " +
                            range + " span " + std::to_string(tensor.end - tensor.begin));
  }
  tensor.begin += data_begin;
  tensor.end += data_begin;
  return ok_status();
}

Status check_unique(const std::vector<TensorEntry>& tensors, const std::string& file_name) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin == names.end()) return ok_status();
  return invalid_argument(file_name + ": " + tensor_named(std::string(*twin)) + " is listed twice");
}

Status check_no_overlap(const std::vector<TensorEntry>& tensors, const std::string& file_name) {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.end > tensor.begin) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->begin < order[i - 1]->end) {
      return invalid_argument(file_name + ": " + tensor_named(order[i - 1]->name) + " and " +
                              tensor_named(order[i]->name) + " overlap in the file");
    }
  }
  return ok_status();
}

}  // namespace

Result<std::vector<TensorEntry>> parse_safetensors(std::span<const uint8_t> file,
                                                   const std::string& file_name) {
  NANOCP_ASSIGN_OR_RETURN(const std::string_view header, find_header(file, file_name));
  NANOCP_ASSIGN_OR_RETURN(std::vector<TensorEntry> tensors,
                          parse_safetensors_header(header, file_name));
  NANOCP_RETURN_IF_ERROR(check_unique(tensors, file_name));
  for (TensorEntry& tensor : tensors) {
    NANOCP_RETURN_IF_ERROR(
        place_tensor(tensor, file_name, kPrefixBytes + header.size(), file.size()));
  }
  NANOCP_RETURN_IF_ERROR(check_no_overlap(tensors, file_name));
  return tensors;
}

}  // namespace nanocp::model
