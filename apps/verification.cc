#include "apps/verification.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

namespace nanocp::apps {
namespace {

double largest_magnitude(const std::vector<float>& values) {
  double largest = 0.0;
  for (const float value : values)
    largest = std::max(largest, std::abs(static_cast<double>(value)));
  return largest;
}

double relative_error(std::span<const float> logits, const std::vector<float>& golden) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (logits.size() != golden.size()) return kInfinity;
  double largest = 0.0;
  for (size_t i = 0; i < golden.size(); ++i) {
    const double difference = std::abs(static_cast<double>(logits[i]) - golden[i]);
    if (!std::isfinite(difference)) return kInfinity;
    largest = std::max(largest, difference);
  }
  if (largest == 0.0) return 0.0;
  const double scale = largest_magnitude(golden);
  return scale > 0.0 ? largest / scale : kInfinity;
}

}  // namespace

double CaseReport::largest_error() const {
  return std::max({last_logits_error, logits_after_error, decode_error.value_or(0.0)});
}

Verification::Verification(engine::Engine& engine, const std::vector<GoldenCase>& cases,
                           double tolerance)
    : engine_(engine), cases_(cases), tolerance_(tolerance), reports_(cases.size()) {}

// The generating run makes one token more than the golden: its logits are logits_after.
int64_t Verification::num_tokens(const GoldenCase& golden) {
  return static_cast<int64_t>(golden.prompt.size() + golden.greedy.size()) + 1;
}

Result<std::optional<std::vector<CaseReport>>> Verification::run(
    const std::function<bool()>& interrupted) {
  NANOCP_RETURN_IF_ERROR(add_requests());
  while (engine_.has_work()) {
    if (interrupted()) return std::optional<std::vector<CaseReport>>();
    const uint64_t num_steps = engine_.num_steps();
    NANOCP_ASSIGN_OR_RETURN(const std::vector<engine::TokenEvent> events, engine_.step());
    for (const engine::TokenEvent& event : events) handle(event);
    if (engine_.has_work() && engine_.num_steps() == num_steps) {
      return Error{ErrorCode::kInternal, "the engine has requests but plans no step"};
    }
  }
  return std::optional<std::vector<CaseReport>>(std::move(reports_));
}

Status Verification::add_requests() {
  for (size_t i = 0; i < cases_.size(); ++i) {
    for (const bool generates : {true, false}) NANOCP_RETURN_IF_ERROR(add_request(i, generates));
  }
  return ok_status();
}

Status Verification::add_request(size_t case_index, bool generates) {
  const GoldenCase& golden = cases_[case_index];
  request::Request request;
  request.prompt = golden.prompt;
  request.ignore_eos = true;
  request.max_tokens = 1;
  if (generates) {
    request.max_tokens = static_cast<int32_t>(golden.greedy.size()) + 1;
  } else {
    request.prompt.insert(request.prompt.end(), golden.greedy.begin(), golden.greedy.end());
  }
  auto id = engine_.add_request(std::move(request));
  if (!id.ok()) {
    return Error{id.error().code, "case " + std::to_string(case_index) + ": " + id.error().message};
  }
  runs_.emplace(id.value(), Run{.case_index = case_index, .generates = generates});
  return ok_status();
}

void Verification::handle(const engine::TokenEvent& event) {
  const auto found = runs_.find(event.sequence);
  if (found == runs_.end()) return;
  Run& run = found->second;
  CaseReport& report = reports_[run.case_index];
  const GoldenCase& golden = cases_[run.case_index];
  if (run.generates) {
    compare_generated(event, run);
    if (event.summary) report.placement = *event.summary;
  } else {
    report.logits_after_error = relative_error(event.details.logits(), golden.logits_after);
  }
  ++run.num_outputs;
}

void Verification::compare_generated(const engine::TokenEvent& event, const Run& run) {
  CaseReport& report = reports_[run.case_index];
  const GoldenCase& golden = cases_[run.case_index];
  if (run.num_outputs == 0) {
    report.last_logits_error = relative_error(event.details.logits(), golden.last_logits);
  }
  if (report.tie || report.mismatch) return;
  const auto index = static_cast<size_t>(run.num_outputs);
  if (index == golden.greedy.size()) {
    report.decode_error = relative_error(event.details.logits(), golden.logits_after);
  } else if (event.token == golden.greedy[index]) {
    ++report.num_greedy_equal;
  } else {
    const double scale =
        std::max(largest_magnitude(golden.last_logits), largest_magnitude(golden.logits_after));
    const bool is_tie = golden.top2_margin[index] <= 2.0 * tolerance_ * scale;
    (is_tie ? report.tie : report.mismatch) = run.num_outputs;
  }
}

}  // namespace nanocp::apps
