// The router of a MoE layer: which experts a row goes to and with which weights.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/matrix.h"

namespace nanocp::ops {

enum class RouterScore { kSoftmax, kSigmoid };
// How the score of a group of experts is formed before whole groups are dropped.
enum class RouterGroupScore { kNone, kMax, kTop2Sum };

struct RouterSpec {
  RouterScore score = RouterScore::kSoftmax;
  RouterGroupScore group_score = RouterGroupScore::kNone;
  bool correction_bias = false;  // added to scores for the choice, not for the weights
  bool router_bias = false;      // a bias of the router's linear layer (gpt-oss)
  bool renormalize = false;      // divide the chosen weights by their sum
  int32_t num_groups = 1;
  int32_t topk_groups = 1;  // groups that stay
  int32_t topk = 0;         // experts per token
  float scaling = 1.0F;     // on the weights, last

  bool operator==(const RouterSpec&) const = default;
};

// For each row of `logits` [num_rows, num_experts]: the topk experts, best first (ties go to the
// lower index), and their weights. topk_idx, topk_weights [num_rows * topk], row-major.
// `correction_bias` is empty or [num_experts]. DeepSeek-V3 (2024), section 2.1.2, for the groups.
void topk_gate(const RouterSpec& spec, tensor::ConstMatrix logits,
               std::span<const float> correction_bias, std::span<int32_t> topk_idx,
               std::span<float> topk_weights);

}  // namespace nanocp::ops
