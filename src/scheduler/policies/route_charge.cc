#include "scheduler/policy.h"

namespace nanocp::scheduler {

void charge_route(InstanceId binding, InstanceId holder, int32_t domain_size, int32_t sign,
                  std::span<InstanceLoad> loads) {
  if (binding == holder) return;
  RouteCount& home = loads[static_cast<size_t>(binding)].routes;
  RouteCount& other = loads[static_cast<size_t>(holder)].routes;
  const bool is_near = binding / domain_size == holder / domain_size;
  (is_near ? home.near_queries : home.far_queries) += sign;
  (is_near ? other.near_partials : other.far_partials) += sign;
}

}  // namespace nanocp::scheduler
