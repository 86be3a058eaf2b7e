#include "model/weight_binder.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "model/aligned_buffer.h"
#include "model/printable.h"
#include "model/transpose.h"

namespace nanocp::model {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

constexpr size_t kReadJobBytes = size_t{16} << 20;
constexpr size_t kPageBytes = 4096;

// Reads the pages of a mapped range in, so that the first requests do not wait for the disk.
void touch_pages(std::span<const uint8_t> bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / kPageBytes * kPageBytes;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size();
  // A hint: one large read of the range in place of many small ones.
  static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED));
  for (size_t i = 0; i < bytes.size(); i += kPageBytes) {
    static_cast<void>(*static_cast<const volatile uint8_t*>(&bytes[i]));
  }
}

size_t alignment_of(StoredType type) {
  return static_cast<size_t>(std::max<int64_t>(bits_per_value(type) / 8, 1));
}

// The layer number of "model.layers.<number>.", or -1.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t layer = -1;
  const char* begin = name.data() + kPrefix.size();
  const char* name_end = name.data() + name.size();
  const auto [end, error] = std::from_chars(begin, name_end, layer);
  return error == std::errc() && end != name_end && *end == '.' ? layer : -1;
}

}  // namespace

Result<const StoredTensor*> WeightBinder::find(const std::string& name,
                                               std::vector<int64_t> shape) {
  const auto found = checkpoint_.tensors().find(name);
  if (found == checkpoint_.tensors().end()) {
    return not_found(checkpoint_.name() + ": tensor \"" + name + "\" of shape " +
                     describe_shape(shape) + " is missing");
  }
  const StoredTensor& tensor = found->second;
  if (tensor.shape != shape) {
    return invalid_argument(tensor.file_name + ": tensor \"" + name + "\" has shape " +
                            describe_shape(tensor.shape) + ", but the config asks for " +
                            describe_shape(shape));
  }
  used_.insert(found->first);
  return &tensor;
}

Status WeightBinder::check_type(const std::string& name, const StoredTensor& tensor,
                                std::initializer_list<StoredType> allowed) const {
  std::string list;
  for (const StoredType type : allowed) {
    if (tensor.type == type) return ok_status();
    list += (list.empty() ? "" : " or ") + std::string(to_string(type));
  }
  return unsupported(tensor.file_name + ": tensor \"" + name + "\" has type " +
                     to_string(tensor.type) + "; wanted " + list);
}

const uint8_t* WeightBinder::keep(const StoredTensor& tensor) {
  const uint8_t* data = tensor.bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % alignment_of(tensor.type) != 0) {
    const auto copy = make_aligned_buffer(static_cast<int64_t>(tensor.bytes.size()));
    std::memcpy(copy.get(), data, tensor.bytes.size());
    owners_.insert(copy);
    return copy.get();
  }
  owners_.insert(tensor.owner);
  read_pages(tensor.bytes);
  return data;
}

void WeightBinder::read_pages(std::span<const uint8_t> bytes) {
  if (!read_ahead_) return;
  for (size_t begin = 0; begin < bytes.size(); begin += kReadJobBytes) {
    const auto part = bytes.subspan(begin, std::min(kReadJobBytes, bytes.size() - begin));
    jobs_.push_back(
        {.bytes = static_cast<int64_t>(part.size()), .run = [part] { touch_pages(part); }});
  }
}

Result<WeightView> WeightBinder::matrix(const std::string& name, int64_t rows, int64_t cols) {
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* tensor, find(name + ".weight", {rows, cols}));
  const bool is_fp8 =
      tensor->type == StoredType::kF8E4m3 && spec_.quantization.kind == Quantization::kFp8Block;
  if (!is_fp8) {
    NANOCP_RETURN_IF_ERROR(check_type(name + ".weight", *tensor,
                                      {StoredType::kBf16, StoredType::kF16, StoredType::kF32}));
  }
  WeightView view;
  view.format = is_fp8 ? WeightFormat::kFp8Block : *plain_weight_format(tensor->type);
  view.data = keep(*tensor);
  view.rows = rows;
  view.cols = cols;
  view.stride_bytes = tensor::row_bytes(view.format, cols);
  if (is_fp8) NANOCP_RETURN_IF_ERROR(add_fp8_scales(name, view));
  return view;
}

Status WeightBinder::add_fp8_scales(const std::string& name, WeightView& view) {
  view.block_rows = spec_.quantization.block_rows;
  view.block_cols = spec_.quantization.block_cols;
  const int64_t scale_rows = (view.rows + view.block_rows - 1) / view.block_rows;
  view.scale_stride = (view.cols + view.block_cols - 1) / view.block_cols;
  auto scales = std::make_shared<std::vector<float>>();
  const std::string scale_name = name + ".weight_scale_inv";
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* tensor,
                          find(scale_name, {scale_rows, view.scale_stride}));
  NANOCP_RETURN_IF_ERROR(
      check_type(scale_name, *tensor, {StoredType::kF32, StoredType::kBf16, StoredType::kF16}));
  *scales = to_floats(tensor->type, tensor->bytes, scale_rows * view.scale_stride);
  view.scales = scales->data();
  owners_.insert(scales);
  return ok_status();
}

Status WeightBinder::vector(const std::string& name, int64_t size, std::vector<float>& out) {
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* tensor, find(name, {size}));
  NANOCP_RETURN_IF_ERROR(
      check_type(name, *tensor, {StoredType::kBf16, StoredType::kF16, StoredType::kF32}));
  out = to_floats(tensor->type, tensor->bytes, size);
  return ok_status();
}

Status WeightBinder::linear(const LinearRequest& request, LinearWeights& out) {
  NANOCP_ASSIGN_OR_RETURN(out.weight, matrix(request.name, request.rows, request.cols));
  if (!request.bias) return ok_status();
  return vector(request.name + ".bias", request.rows, out.bias);
}

WeightView WeightBinder::transpose_later(const WeightView& source, uint8_t* target) {
  const WeightView view = transposed_view(source, target);
  jobs_.push_back({.bytes = view.rows * view.stride_bytes,
                   .run = [source, target] { transpose_weight(source, target); }});
  return view;
}

Status WeightBinder::latent_up(const LinearRequest& request, const AttentionSpec& attention,
                               MlaWeights& out) {
  NANOCP_ASSIGN_OR_RETURN(const WeightView both, matrix(request.name, request.rows, request.cols));
  const int64_t nope = attention.qk_nope_head_dim;
  const int64_t value = attention.v_head_dim;
  const int64_t head_bytes = transposed_bytes(both.row_range(0, nope));
  const auto buffer = make_aligned_buffer(head_bytes * attention.num_heads);
  owners_.insert(buffer);
  for (int64_t head = 0; head < attention.num_heads; ++head) {
    const int64_t first = head * (nope + value);
    out.k_up.push_back(
        transpose_later(both.row_range(first, nope), buffer.get() + head * head_bytes));
    out.v_up.push_back(both.row_range(first + nope, value));
  }
  return ok_status();
}

std::string WeightBinder::describe_unused() const {
  int64_t num_next_token = 0;
  int64_t num_others = 0;
  std::string_view example;
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    if (used_.contains(name)) continue;
    if (layer_of(name) >= spec_.num_layers) {
      ++num_next_token;
    } else if (num_others++ == 0) {
      example = name;
    }
  }
  std::string text;
  if (num_next_token > 0) {
    text = "skipped " + std::to_string(num_next_token) +
           " tensors of multi-token-prediction layers (model.layers." +
           std::to_string(spec_.num_layers) + " and up), which are not used";
  }
  if (num_others > 0) {
    text += (text.empty() ? "skipped " : "; skipped ") + std::to_string(num_others) +
            " tensors that this model does not use, such as \"" + printable(example) + "\"";
  }
  return text;
}

}  // namespace nanocp::model
