// gpt-oss: the experts of a layer in one tensor.
#include <utility>

#include "model/aligned_buffer.h"
#include "model/transpose.h"
#include "model/weight_binder.h"

namespace nanocp::model {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

// Every second row of `both`, from `first` on.
WeightView every_second_row(const WeightView& both, int64_t first) {
  WeightView half = both.row_range(first, both.rows - first);
  half.rows = both.rows / 2;
  half.stride_bytes *= 2;
  half.group_scale_stride *= 2;
  half.scale_row_offset = 0;
  return half;
}

// `all` holds the rows of every expert one after another.
void split_experts(const WeightView& gate_up, const WeightView& down,
                   std::vector<GatedMlpWeights>& out) {
  const auto num_experts = static_cast<int64_t>(out.size());
  const int64_t gate_up_rows = gate_up.rows / num_experts;
  const int64_t down_rows = down.rows / num_experts;
  for (int64_t i = 0; i < num_experts; ++i) {
    GatedMlpWeights& expert = out[static_cast<size_t>(i)];
    const WeightView both = gate_up.row_range(i * gate_up_rows, gate_up_rows);
    expert.gate.weight = every_second_row(both, 0);
    expert.up.weight = every_second_row(both, 1);
    expert.down.weight = down.row_range(i * down_rows, down_rows);
  }
}

}  // namespace

Status WeightBinder::fused_experts(const FusedExpertsRequest& request,
                                   std::vector<GatedMlpWeights>& out) {
  NANOCP_RETURN_IF_ERROR(request.mxfp4 ? fused_mxfp4(request, out) : fused_plain(request, out));
  return request.bias ? fused_biases(request, out) : ok_status();
}

// Stored input-major, [experts, cols, rows]; the view is [experts * rows, cols].
Result<WeightView> WeightBinder::fused_plain_tensor(const std::string& name, int64_t num_experts,
                                                    int64_t rows, int64_t cols) {
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* tensor, find(name, {num_experts, cols, rows}));
  NANOCP_RETURN_IF_ERROR(
      check_type(name, *tensor, {StoredType::kBf16, StoredType::kF16, StoredType::kF32}));
  WeightView stored;
  stored.format = *plain_weight_format(tensor->type);
  stored.data = tensor->bytes.data();
  stored.rows = num_experts * cols;
  stored.cols = rows;
  stored.stride_bytes = tensor::row_bytes(stored.format, rows);
  const auto buffer = make_aligned_buffer(stored.rows * stored.stride_bytes);
  owners_.insert(buffer);
  const int64_t expert_bytes = cols * stored.stride_bytes;
  for (int64_t i = 0; i < num_experts; ++i) {
    transpose_later(stored.row_range(i * cols, cols), buffer.get() + i * expert_bytes);
  }
  WeightView view = stored;
  view.data = buffer.get();
  view.rows = num_experts * rows;
  view.cols = cols;
  view.stride_bytes = tensor::row_bytes(view.format, cols);
  return view;
}

Status WeightBinder::fused_plain(const FusedExpertsRequest& request,
                                 std::vector<GatedMlpWeights>& out) {
  NANOCP_ASSIGN_OR_RETURN(const WeightView gate_up,
                          fused_plain_tensor(request.prefix + ".gate_up_proj", request.num_experts,
                                             2 * request.intermediate, request.hidden));
  NANOCP_ASSIGN_OR_RETURN(const WeightView down,
                          fused_plain_tensor(request.prefix + ".down_proj", request.num_experts,
                                             request.hidden, request.intermediate));
  split_experts(gate_up, down, out);
  return ok_status();
}

Result<WeightView> WeightBinder::fused_mxfp4_tensor(const std::string& name, int64_t num_experts,
                                                    int64_t rows, int64_t cols) {
  const int64_t groups = cols / tensor::kMxfp4GroupSize;
  NANOCP_ASSIGN_OR_RETURN(
      const StoredTensor* blocks,
      find(name + "_blocks", {num_experts, rows, groups, tensor::kMxfp4GroupSize / 2}));
  NANOCP_RETURN_IF_ERROR(check_type(name + "_blocks", *blocks, {StoredType::kU8}));
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* scales,
                          find(name + "_scales", {num_experts, rows, groups}));
  NANOCP_RETURN_IF_ERROR(
      check_type(name + "_scales", *scales, {StoredType::kU8, StoredType::kF8E8m0}));
  WeightView view;
  view.format = WeightFormat::kMxfp4;
  view.data = keep(*blocks);
  view.rows = num_experts * rows;
  view.cols = cols;
  view.stride_bytes = tensor::row_bytes(view.format, cols);
  view.group_scales = keep(*scales);
  view.group_scale_stride = groups;
  return view;
}

Status WeightBinder::fused_mxfp4(const FusedExpertsRequest& request,
                                 std::vector<GatedMlpWeights>& out) {
  NANOCP_ASSIGN_OR_RETURN(const WeightView gate_up,
                          fused_mxfp4_tensor(request.prefix + ".gate_up_proj", request.num_experts,
                                             2 * request.intermediate, request.hidden));
  NANOCP_ASSIGN_OR_RETURN(const WeightView down,
                          fused_mxfp4_tensor(request.prefix + ".down_proj", request.num_experts,
                                             request.hidden, request.intermediate));
  split_experts(gate_up, down, out);
  return ok_status();
}

Status WeightBinder::fused_biases(const FusedExpertsRequest& request,
                                  std::vector<GatedMlpWeights>& out) {
  const std::string gate_up_name = request.prefix + ".gate_up_proj_bias";
  const std::string down_name = request.prefix + ".down_proj_bias";
  const int64_t both = 2 * request.intermediate;
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* gate_up,
                          find(gate_up_name, {request.num_experts, both}));
  NANOCP_ASSIGN_OR_RETURN(const StoredTensor* down,
                          find(down_name, {request.num_experts, request.hidden}));
  for (const auto& [name, tensor] :
       {std::pair(&gate_up_name, gate_up), std::pair(&down_name, down)}) {
    NANOCP_RETURN_IF_ERROR(
        check_type(*name, *tensor, {StoredType::kBf16, StoredType::kF16, StoredType::kF32}));
  }
  const auto mixed = to_floats(gate_up->type, gate_up->bytes, request.num_experts * both);
  const auto plain = to_floats(down->type, down->bytes, request.num_experts * request.hidden);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto first = mixed.begin() + static_cast<int64_t>(i) * both;
    for (int64_t j = 0; j < both; j += 2) {
      out[i].gate.bias.push_back(first[j]);
      out[i].up.bias.push_back(first[j + 1]);
    }
    const auto down_first = plain.begin() + static_cast<int64_t>(i) * request.hidden;
    out[i].down.bias.assign(down_first, down_first + request.hidden);
  }
  return ok_status();
}

}  // namespace nanocp::model
