#include "apps/slo.h"

#include <charconv>
#include <cmath>

#include "sim/length_distribution.h"

namespace nanocp::apps {
namespace {

// "50ms", "10s" or "200us" in us.
Result<double> parse_duration_us(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  const double factor = unit == "us" ? 1.0 : unit == "ms" ? 1e3 : unit == "s" ? 1e6 : 0.0;
  if (error != std::errc() || factor == 0.0 || !(value > 0.0) || !std::isfinite(value)) {
    return invalid_argument("--slo: " + sim::quoted(text) +
                            " is not a time; write it as in 50ms or 10s");
  }
  return value * factor;
}

Error unknown_name(std::string_view piece, const std::vector<SloTime>& times) {
  std::string message = "--slo: ";
  message.append(sim::quoted(piece)).append(" is none of ");
  for (size_t i = 0; i < times.size(); ++i) {
    message.append(i == 0 ? "" : ", ").append(times[i].name).append("=");
  }
  return invalid_argument(message.append(" and percentile="));
}

}  // namespace

Status parse_slo_list(std::string_view text, const std::vector<SloTime>& times,
                      double& percentile) {
  for (const std::string_view piece : sim::split_outside(text, ',')) {
    const size_t equals = piece.find('=');
    const std::string_view name = piece.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : piece.substr(equals + 1);
    if (name == "percentile") {
      NANOCP_ASSIGN_OR_RETURN(percentile, sim::parse_share(std::string(value) + "%"));
      continue;
    }
    double* target = nullptr;
    for (const SloTime& time : times) {
      if (time.name == name) target = time.value_us;
    }
    if (target == nullptr) return unknown_name(piece, times);
    NANOCP_ASSIGN_OR_RETURN(*target, parse_duration_us(value));
  }
  return ok_status();
}

}  // namespace nanocp::apps
