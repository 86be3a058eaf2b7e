// Instances by a key, the lowest first and ties by number, kept while keys change one at a time;
// with the sequences of each at hand, as loads lie apart. One thread.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "base/check.h"
#include "plan/ids.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

class InstanceOrder {
 public:
  struct Place {
    double key;
    InstanceId instance;
    int32_t num_sequences;  // bound to it
    bool operator<(const Place& other) const {
      return key != other.key ? key < other.key : instance < other.instance;
    }
  };

  // `key_of(instance)` of all.
  template <typename KeyOf>
  void rebuild(const ClusterView& view, KeyOf key_of) {
    keys_.clear();
    places_.clear();
    for (InstanceId i = 0; i < view.num_instances(); ++i) {
      keys_.push_back(key_of(i));
      places_.push_back({keys_.back(), i, view.at(i).num_sequences});
    }
    std::sort(places_.begin(), places_.end());
  }

  void update(const ClusterView& view, InstanceId instance, double key) {
    double& old = keys_[static_cast<size_t>(instance)];
    const auto from = std::lower_bound(places_.begin(), places_.end(), Place{old, instance, 0});
    NANOCP_CHECK(from != places_.end() && from->instance == instance);
    from->num_sequences = view.at(instance).num_sequences;
    if (key == old) return;
    const Place place{key, instance, from->num_sequences};
    const auto to = std::lower_bound(places_.begin(), places_.end(), place);
    if (to > from) {
      std::move(from + 1, to, from);
      *(to - 1) = place;
    } else {
      std::move_backward(to, from, from + 1);
      *to = place;
    }
    old = key;
  }

  // [num_instances]; valid until the order changes.
  std::span<const Place> places() const { return places_; }

 private:
  std::vector<Place> places_;  // rising
  std::vector<double> keys_;   // [num_instances]
};

}  // namespace nanocp::scheduler
