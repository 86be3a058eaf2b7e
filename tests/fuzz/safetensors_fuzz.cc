// A safetensors file and an index from nobody knows where: reading their headers never crashes, and
// what is accepted keeps its promises (ranges inside the file, sizes that match, no overlap).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model/json_document.h"
#include "model/safetensors.h"

namespace {

using nanocp::model::TensorEntry;

void check_message(const std::string& message) {
  NANOCP_CHECK(message.starts_with("fuzz"));
  NANOCP_CHECK_LT(message.size(), 2000U);
  for (const char c : message) NANOCP_CHECK(c >= 0x20 && c < 0x7f);
}

void check_entries(const std::vector<TensorEntry>& tensors, size_t file_bytes) {
  std::set<std::string> names;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const TensorEntry& tensor : tensors) {
    NANOCP_CHECK(names.insert(tensor.name).second);
    NANOCP_CHECK_LE(tensor.begin, tensor.end);
    NANOCP_CHECK_LE(tensor.end, file_bytes);
    unsigned __int128 bits = static_cast<unsigned>(bits_per_value(tensor.type));
    for (const int64_t dim : tensor.shape) {
      NANOCP_CHECK_GE(dim, 0);
      if (dim == 0) bits = 0;
    }
    for (const int64_t dim : tensor.shape) bits *= static_cast<uint64_t>(dim);
    NANOCP_CHECK(bits == static_cast<unsigned __int128>(tensor.end - tensor.begin) * 8);
    if (tensor.end > tensor.begin) ranges.emplace_back(tensor.begin, tensor.end);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    NANOCP_CHECK_LE(ranges[i - 1].second, ranges[i].first);
  }
}

void check_file(std::span<const uint8_t> file) {
  const auto tensors = nanocp::model::parse_safetensors(file, "fuzz");
  if (tensors.ok()) {
    check_entries(*tensors, file.size());
  } else {
    check_message(tensors.error().message);
  }
}

}  // namespace

// The input is a file, and once more the header of a file with 64 bytes of data.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check_file({data, size});
  std::vector<uint8_t> file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<uint8_t>(size >> (8 * i)));
  file.insert(file.end(), data, data + size);
  file.resize(file.size() + 64);
  check_file(file);
  const auto document =
      nanocp::model::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!document.ok()) check_message(document.error().message);
  return 0;
}
