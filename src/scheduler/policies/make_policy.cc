#include <string>

#include "scheduler/policies/bound_policy.h"
#include "scheduler/policies/dcp_policy.h"
#include "scheduler/policies/fixed_cp_policy.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {
namespace {

Result<Router> router_of(const std::string& name) {
  if (name == "round_robin") return Router::kRoundRobin;
  if (name == "least_requests") return Router::kLeastRequests;
  if (name == "least_kv") return Router::kLeastKv;
  if (name == "power_of_two") return Router::kPowerOfTwo;
  if (name == "any_instance") return Router::kAnyInstance;
  return not_found("router '" + name +
                   "' is unknown: use round_robin, least_requests, least_kv, power_of_two or "
                   "any_instance");
}

Status check_degree(std::string_view policy, const PolicyOptions& options) {
  const std::string named = std::string(policy) + " with degree " + std::to_string(options.degree);
  if (options.degree < 1 || options.degree > options.num_instances) {
    return invalid_argument(named + " on " + std::to_string(options.num_instances) +
                            " instances: the degree must be between 1 and the number of instances");
  }
  if (options.max_degree > 0 && options.degree > options.max_degree) {
    return invalid_argument(named + ": a request may have a context-parallel degree of " +
                            std::to_string(options.max_degree) + " at most (max_cp_degree)");
  }
  return ok_status();
}

Status check_max_degree(const PolicyOptions& options) {
  if (options.max_degree >= 0 && options.max_degree <= options.num_instances) return ok_status();
  return invalid_argument("max_cp_degree is " + std::to_string(options.max_degree) + " on " +
                          std::to_string(options.num_instances) +
                          " instances: it must be between 1 and the number of instances");
}

}  // namespace

Result<std::unique_ptr<Policy>> make_policy(std::string_view name, const PolicyOptions& options) {
  if (options.num_instances < 1) {
    return invalid_argument("number of instances is " + std::to_string(options.num_instances) +
                            ", it must be at least 1");
  }
  NANOCP_RETURN_IF_ERROR(check_max_degree(options));
  if (name == "bound") {
    NANOCP_ASSIGN_OR_RETURN(const Router router, router_of(options.router));
    return std::unique_ptr<Policy>(std::make_unique<BoundPolicy>(router));
  }
  if (name == "uniform_cp" || name == "threshold_cp") {
    NANOCP_RETURN_IF_ERROR(check_degree(name, options));
    const bool is_uniform = name == "uniform_cp";
    if (!is_uniform && options.threshold_tokens < 0) {
      return invalid_argument("threshold_tokens is " + std::to_string(options.threshold_tokens) +
                              ", it must not be negative");
    }
    return std::unique_ptr<Policy>(std::make_unique<FixedCpPolicy>(
        FixedCpPolicy::Rule{.name = std::string(name),
                            .degree = options.degree,
                            .threshold_tokens = is_uniform ? -1 : options.threshold_tokens}));
  }
  if (name == "dcp") {
    if (options.min_tokens_per_shard < 1) {
      return invalid_argument("min_tokens_per_shard is " +
                              std::to_string(options.min_tokens_per_shard) +
                              ", it must be at least 1");
    }
    if (options.parts.keeps_budget && options.costs.budget <= 0.0) {
      return invalid_argument(
          "dcp cannot keep the objective: a step of one row takes longer, or its costs are "
          "unknown");
    }
    return std::unique_ptr<Policy>(std::make_unique<DcpPolicy>(
        options.costs, options.parts, options.min_tokens_per_shard, options.max_degree));
  }
  return not_found("policy '" + std::string(name) +
                   "' is unknown: use bound, uniform_cp, threshold_cp or dcp");
}

}  // namespace nanocp::scheduler
