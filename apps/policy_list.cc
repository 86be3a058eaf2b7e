#include "apps/policy_list.h"

#include <charconv>

#include "sim/oracle_policy.h"

namespace nanocp::apps {

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
  } else {
    return invalid_argument("policy '" + word + "': only bound, uniform_cp and threshold_cp take " +
                            "something after a slash");
  }
  return scheduler::make_policy(name, options);
}

}  // namespace nanocp::apps
