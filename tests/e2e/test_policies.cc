#include "e2e/test_policies.h"

#include <algorithm>
#include <numeric>

#include "base/random.h"

namespace nanocp::e2e {
namespace {

using scheduler::AdmissionDecision;
using scheduler::BindingQuery;
using scheduler::ClusterView;
using scheduler::RequestShape;

// The tests give every instance room for everything, so only counts are cared for here.
class TestPolicy : public scheduler::Policy {
 public:
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const RequestShape& /*shape*/) const override {
    return *std::min_element(capacities.begin(), capacities.end());
  }
  bool permits_growth(const ClusterView& /*view*/, const RequestShape& /*shape*/,
                      InstanceId /*instance*/) const override {
    return true;
  }
};

class UnevenPolicy final : public TestPolicy {
 public:
  explicit UnevenPolicy(int degree) : degree_(degree) {}
  std::string_view name() const override { return "uneven"; }

  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override {
    AdmissionDecision decision;
    const auto first = static_cast<int>(view.num_admissions);
    const int64_t weight_sum = int64_t{degree_} * (degree_ + 1) / 2;
    int64_t left = shape.num_new_blocks;
    for (int i = 0; i < degree_; ++i) {
      const int64_t share = (shape.num_new_blocks * (degree_ - i) + weight_sum - 1) / weight_sum;
      const int64_t blocks = i + 1 == degree_ ? left : std::min(left, share);
      decision.spans.push_back({(first + i) % view.num_instances(), blocks});
      left -= blocks;
    }
    decision.binding = (first + degree_ - 1) % view.num_instances();
    return decision;
  }
  std::optional<InstanceId> plan_growth(const ClusterView& /*view*/,
                                        const RequestShape& shape) const override {
    const auto shards = shape.placement->shards();
    return shards[static_cast<size_t>(shape.placement->num_blocks()) % shards.size()].holder;
  }
  InstanceId plan_binding(const ClusterView& /*view*/, const BindingQuery& query) const override {
    return query.current;
  }

 private:
  const int degree_;
};

class RandomPolicy final : public TestPolicy {
 public:
  explicit RandomPolicy(uint64_t seed) : random_(seed) {}
  std::string_view name() const override { return "random"; }

  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override {
    AdmissionDecision decision;
    int64_t left = shape.num_new_blocks;
    while (left > 0 || random_.below(4) == 0) {
      const int64_t blocks = std::min<int64_t>(left, random_.between(0, 3));
      decision.spans.push_back({any(view), blocks});
      left -= blocks;
    }
    decision.binding = any(view);
    return decision;
  }
  std::optional<InstanceId> plan_growth(const ClusterView& view,
                                        const RequestShape& /*shape*/) const override {
    return any(view);
  }
  InstanceId plan_binding(const ClusterView& view, const BindingQuery& /*query*/) const override {
    return any(view);
  }

 private:
  InstanceId any(const ClusterView& view) const {
    return static_cast<InstanceId>(random_.below(static_cast<uint64_t>(view.num_instances())));
  }
  mutable Random random_;
};

}  // namespace

std::unique_ptr<scheduler::Policy> make_uneven_policy(int degree) {
  return std::make_unique<UnevenPolicy>(degree);
}

std::unique_ptr<scheduler::Policy> make_random_policy(uint64_t seed) {
  return std::make_unique<RandomPolicy>(seed);
}

}  // namespace nanocp::e2e
