#include "ops/topk_gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace nanocp::ops {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

void softmax(std::span<const float> logits, std::span<float> scores) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  float sum = 0.0F;
  for (size_t i = 0; i < logits.size(); ++i) {
    scores[i] = std::exp(logits[i] - largest);
    sum += scores[i];
  }
  for (float& score : scores) score /= sum;
}

void sigmoid(std::span<const float> logits, std::span<float> scores) {
  for (size_t i = 0; i < logits.size(); ++i) scores[i] = 1.0F / (1.0F + std::exp(-logits[i]));
}

float group_score(RouterGroupScore kind, std::span<const float> scores) {
  float best = kDropped;
  float second = kDropped;
  for (const float score : scores) {
    second = std::max(second, std::min(best, score));
    best = std::max(best, score);
  }
  if (kind == RouterGroupScore::kMax || scores.size() < 2) return best;
  return best + second;
}

// Indices of the `count` largest values, largest first, ties to the lower index.
void pick_largest(std::span<const float> values, std::span<int32_t> order, size_t count) {
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float va = values[static_cast<size_t>(a)];
                      const float vb = values[static_cast<size_t>(b)];
                      return va != vb ? va > vb : a < b;
                    });
}

class RowGate {
 public:
  RowGate(const RouterSpec& spec, size_t num_experts)
      : spec_(spec), scores_(num_experts), choice_(num_experts), order_(num_experts) {}

  void run(std::span<const float> logits, std::span<const float> bias, std::span<int32_t> idx,
           std::span<float> weights) {
    if (spec_.score == RouterScore::kSoftmax) {
      softmax(logits, scores_);
    } else {
      sigmoid(logits, scores_);
    }
    choice_ = scores_;
    for (size_t e = 0; e < bias.size(); ++e) choice_[e] += bias[e];
    if (spec_.group_score != RouterGroupScore::kNone) drop_groups();
    pick_largest(choice_, order_, idx.size());
    std::copy_n(order_.begin(), idx.size(), idx.begin());
    weigh(idx, weights);
  }

 private:
  void drop_groups() {
    const auto num_groups = static_cast<size_t>(spec_.num_groups);
    const size_t size = choice_.size() / num_groups;
    std::vector<float> group_scores(num_groups);
    std::vector<int32_t> group_order(num_groups);
    for (size_t g = 0; g < num_groups; ++g) {
      group_scores[g] =
          group_score(spec_.group_score, std::span<const float>(choice_).subspan(g * size, size));
    }
    pick_largest(group_scores, group_order, num_groups);
    for (size_t k = static_cast<size_t>(spec_.topk_groups); k < num_groups; ++k) {
      const auto dropped = static_cast<size_t>(group_order[k]);
      std::fill_n(choice_.begin() + static_cast<std::ptrdiff_t>(dropped * size), size, kDropped);
    }
  }

  void weigh(std::span<const int32_t> idx, std::span<float> weights) const {
    float sum = 0.0F;
    for (size_t k = 0; k < idx.size(); ++k) {
      weights[k] = scores_[static_cast<size_t>(idx[k])];
      sum += weights[k];
    }
    float factor = spec_.scaling;
    if (spec_.renormalize) factor /= sum + 1e-20F;  // the guard of the published models
    for (float& weight : weights) weight *= factor;
  }

  const RouterSpec& spec_;
  std::vector<float> scores_;
  std::vector<float> choice_;
  std::vector<int32_t> order_;
};

}  // namespace

void topk_gate(const RouterSpec& spec, tensor::ConstMatrix logits,
               std::span<const float> correction_bias, std::span<int32_t> topk_idx,
               std::span<float> topk_weights) {
  const auto topk = static_cast<size_t>(spec.topk);
  NANOCP_CHECK_EQ(topk_idx.size(), static_cast<size_t>(logits.rows) * topk);
  NANOCP_CHECK_EQ(topk_weights.size(), topk_idx.size());
  NANOCP_CHECK(correction_bias.empty() ||
               correction_bias.size() == static_cast<size_t>(logits.cols));
  RowGate gate(spec, static_cast<size_t>(logits.cols));
  for (int64_t r = 0; r < logits.rows; ++r) {
    const size_t first = static_cast<size_t>(r) * topk;
    gate.run(logits.row_span(r), correction_bias, topk_idx.subspan(first, topk),
             topk_weights.subspan(first, topk));
  }
}

}  // namespace nanocp::ops
