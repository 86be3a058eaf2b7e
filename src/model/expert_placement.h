// Which instance owns which expert: contiguous ranges whose sizes differ by at most one. With more
// instances than experts some own none. Immutable, the same on all instances.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "plan/ids.h"

namespace nanocp::model {

class ExpertPlacement {
 public:
  ExpertPlacement(int32_t num_experts, int32_t num_instances) : num_instances_(num_instances) {
    NANOCP_CHECK(num_instances > 0);
    owners_.reserve(static_cast<size_t>(num_experts));
    for (int64_t e = 0; e < num_experts; ++e) {
      owners_.push_back(static_cast<InstanceId>(e * num_instances / num_experts));
    }
  }

  int32_t num_instances() const { return num_instances_; }
  InstanceId owner(int32_t expert) const { return owners_[static_cast<size_t>(expert)]; }
  std::span<const InstanceId> owners() const { return owners_; }  // [num_experts]

 private:
  const int32_t num_instances_;
  std::vector<InstanceId> owners_;
};

}  // namespace nanocp::model
