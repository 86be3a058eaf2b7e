#include "ops/topk_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/random.h"

namespace nanocp::ops {
namespace {

struct Choice {
  std::vector<int32_t> idx;
  std::vector<float> weights;
};

Choice run(const RouterSpec& spec, std::vector<float> logits, const std::vector<float>& bias = {}) {
  const auto topk = static_cast<size_t>(spec.topk);
  const auto cols = static_cast<int64_t>(logits.size());
  Choice choice = {std::vector<int32_t>(topk), std::vector<float>(topk)};
  topk_gate(spec, {logits.data(), 1, cols, cols}, bias, choice.idx, choice.weights);
  return choice;
}

// The definition, one expert at a time, in double.
class NaiveGate {
 public:
  NaiveGate(const RouterSpec& spec, const std::vector<float>& logits,
            const std::vector<float>& bias)
      : spec_(spec) {
    double sum = 0.0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    for (size_t e = 0; e < logits.size(); ++e) {
      const auto logit = static_cast<double>(logits[e]);
      const bool softmax = spec.score == RouterScore::kSoftmax;
      score_.push_back(softmax ? std::exp(logit) / sum : 1.0 / (1.0 + std::exp(-logit)));
      rank_.push_back(score_[e] + (bias.empty() ? 0.0 : static_cast<double>(bias[e])));
    }
  }

  std::set<int32_t> chosen() const {
    std::set<int32_t> result;
    while (result.size() < static_cast<size_t>(spec_.topk)) result.insert(best_not_in(result));
    return result;
  }

  double weight(int32_t expert, const std::set<int32_t>& chosen) const {
    double sum = 0.0;
    for (const int32_t e : chosen) sum += score_[static_cast<size_t>(e)];
    const double share = score_[static_cast<size_t>(expert)] / (spec_.renormalize ? sum : 1.0);
    return share * static_cast<double>(spec_.scaling);
  }

 private:
  size_t group_size() const { return rank_.size() / static_cast<size_t>(spec_.num_groups); }

  double group_score(size_t group) const {
    std::vector<double> members(
        rank_.begin() + static_cast<std::ptrdiff_t>(group * group_size()),
        rank_.begin() + static_cast<std::ptrdiff_t>((group + 1) * group_size()));
    std::sort(members.rbegin(), members.rend());
    const bool top2 = spec_.group_score == RouterGroupScore::kTop2Sum && members.size() > 1;
    return top2 ? members[0] + members[1] : members[0];
  }

  bool group_stays(size_t group) const {
    if (spec_.group_score == RouterGroupScore::kNone) return true;
    int num_better = 0;
    for (size_t g = 0; g < static_cast<size_t>(spec_.num_groups); ++g) {
      if (group_score(g) > group_score(group)) ++num_better;
    }
    return num_better < spec_.topk_groups;
  }

  int32_t best_not_in(const std::set<int32_t>& taken) const {
    int32_t best = -1;
    for (size_t e = 0; e < rank_.size(); ++e) {
      const auto expert = static_cast<int32_t>(e);
      if (taken.count(expert) > 0 || !group_stays(e / group_size())) continue;
      if (best < 0 || rank_[e] > rank_[static_cast<size_t>(best)]) best = expert;
    }
    return best;
  }

  const RouterSpec& spec_;
  std::vector<double> score_;
  std::vector<double> rank_;
};

TEST(TopkGate, EqualsTheDefinitionForEveryKindOfRouter) {
  Random random(31);
  for (int i = 0; i < 2000; ++i) {
    RouterSpec spec;
    spec.score = random.below(2) == 0 ? RouterScore::kSoftmax : RouterScore::kSigmoid;
    spec.group_score = static_cast<RouterGroupScore>(random.below(3));
    spec.num_groups = spec.group_score == RouterGroupScore::kNone ? 1 : 4;
    spec.topk_groups = static_cast<int32_t>(random.between(1, spec.num_groups));
    spec.topk = static_cast<int32_t>(random.between(1, 4));
    spec.renormalize = random.below(2) == 0;
    spec.scaling = random.below(2) == 0 ? 1.0F : 2.5F;
    std::vector<float> logits(16);
    for (float& logit : logits) logit = static_cast<float>(random.uniform() * 6 - 3);
    std::vector<float> bias;
    for (int e = 0; i % 2 == 0 && e < 16; ++e) {
      bias.push_back(static_cast<float>(random.uniform() - 0.5));
    }
    const Choice choice = run(spec, logits, bias);
    const NaiveGate naive(spec, logits, bias);
    const std::set<int32_t> want = naive.chosen();
    EXPECT_EQ(std::set<int32_t>(choice.idx.begin(), choice.idx.end()), want);
    for (size_t k = 0; k < choice.idx.size(); ++k) {
      EXPECT_NEAR(choice.weights[k], naive.weight(choice.idx[k], want), 1e-5);
    }
  }
}

TEST(TopkGate, TiesGoToTheLowerExpert) {
  const Choice choice = run({.topk = 3}, {1.0F, 2.0F, 2.0F, 2.0F, 2.0F});
  EXPECT_EQ(choice.idx, (std::vector<int32_t>{1, 2, 3}));
}

// A bias decides who is chosen, but the weights are the scores without it.
TEST(TopkGate, BiasDoesNotEnterTheWeights) {
  RouterSpec spec = {.score = RouterScore::kSigmoid, .correction_bias = true, .topk = 1};
  const Choice choice = run(spec, {2.0F, 0.0F}, {0.0F, 1.0F});
  EXPECT_EQ(choice.idx[0], 1);
  EXPECT_NEAR(choice.weights[0], 0.5F, 1e-6F);
}

// Dropped groups stay out even when the biased scores of the others are negative.
TEST(TopkGate, DroppedGroupsStayOut) {
  RouterSpec spec = {.score = RouterScore::kSigmoid, .group_score = RouterGroupScore::kTop2Sum};
  spec.num_groups = 2;
  spec.topk_groups = 1;
  spec.topk = 2;
  const Choice choice = run(spec, {0.0F, 0.0F, 0.0F, 0.0F}, {-2.0F, -2.0F, -1.0F, -3.5F});
  EXPECT_EQ(std::set<int32_t>(choice.idx.begin(), choice.idx.end()), (std::set<int32_t>{0, 1}));
}

}  // namespace
}  // namespace nanocp::ops
