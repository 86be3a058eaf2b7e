#include "apps/policy_list.h"

#include <charconv>

#include "sim/oracle_policy.h"

namespace nanocp::apps {
namespace {

Status set_parts(const std::string& word, const std::string& detail, scheduler::DcpParts& parts) {
  if (detail == "slo") {
    parts.keeps_budget = true;
  } else if (detail == "no_splits") {
    parts.splits = false;
  } else if (detail == "any_domain") {
    parts.stays_in_domain = false;
  } else if (detail == "no_moves") {
    parts.moves_bindings = false;
  } else if (detail == "no_tails") {
    parts.moves_tails = false;
  } else if (detail == "no_reserve") {
    parts.reserves_growth = false;
  } else {
    return invalid_argument("policy '" + word +
                            "': after dcp/ comes slo, no_splits, any_domain, no_moves, no_tails or "
                            "no_reserve");
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<scheduler::Policy>> make_named_policy(
    const std::string& word, const scheduler::PolicyOptions& defaults) {
  scheduler::PolicyOptions options = defaults;
  const size_t slash = word.find('/');
  const std::string name = word.substr(0, slash);
  if (word == sim::OraclePolicy::kName) {
    return std::unique_ptr<scheduler::Policy>(std::make_unique<sim::OraclePolicy>());
  }
  if (slash == std::string::npos) return scheduler::make_policy(name, options);
  const std::string detail = word.substr(slash + 1);
  if (name == "bound") {
    options.router = detail;
  } else if (name == "uniform_cp" || name == "threshold_cp") {
    const char* end = detail.data() + detail.size();
    const auto [stop, error] = std::from_chars(detail.data(), end, options.degree);
    if (error != std::errc() || stop != end) {
      return invalid_argument("policy '" + word + "': '" + detail + "' is not a degree");
    }
  } else if (name == "dcp") {
    NANOCP_RETURN_IF_ERROR(set_parts(word, detail, options.parts));
  } else {
    return invalid_argument("policy '" + word + "': only bound, uniform_cp, threshold_cp and dcp " +
                            "take something after a slash");
  }
  return scheduler::make_policy(name, options);
}

}  // namespace nanocp::apps
