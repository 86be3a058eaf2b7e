#include "sim/rate_search.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <deque>

#include "base/check.h"

namespace nanocp::sim {
namespace {

constexpr double kRateMin = 1e-3;
constexpr double kRateMax = 1e6;

int32_t place_of(double rate_per_s, double precision) {
  return static_cast<int32_t>(std::lround(std::log(rate_per_s) / std::log1p(precision)));
}

}  // namespace

RateSearch::RateSearch(double guess_per_s, double precision, double guess_error)
    : precision_(precision),
      place_min_(place_of(kRateMin, precision)),
      place_max_(place_of(kRateMax, precision)),
      start_(std::clamp(place_of(guess_per_s, precision), place_min_, place_max_)),
      stride_(std::max(1, place_of(1.0 + guess_error, precision))) {}

std::optional<int32_t> RateSearch::next() const {
  if (is_over_) return std::nullopt;
  if (met_ && missed_) {
    const int32_t gap = *missed_ - *met_;
    return gap > 1 ? std::optional(*met_ + gap / 2) : std::nullopt;
  }
  if (met_) {
    return *met_ < place_max_ ? std::optional(std::min(place_max_, *met_ + stride_)) : std::nullopt;
  }
  if (missed_) {
    return *missed_ > place_min_ ? std::optional(std::max(place_min_, *missed_ - stride_))
                                 : std::nullopt;
  }
  return start_;
}

void RateSearch::record(int32_t place, bool is_met) {
  NANOCP_CHECK(next() == place);
  const bool is_step = met_.has_value() || missed_.has_value();
  if (is_step && !(met_ && missed_)) stride_ *= 2;
  (is_met ? met_ : missed_) = place;
}

std::vector<int32_t> RateSearch::upcoming(size_t count) const {
  std::vector<int32_t> places;
  std::deque<RateSearch> states = {*this};
  while (!states.empty() && places.size() < count) {
    const RateSearch state = states.front();
    states.pop_front();
    const std::optional<int32_t> place = state.next();
    if (!place) continue;
    if (std::find(places.begin(), places.end(), *place) == places.end()) places.push_back(*place);
    for (const bool is_met : {true, false}) {
      states.push_back(state);
      states.back().record(*place, is_met);
    }
  }
  return places;
}

double RateSearch::rate_per_s(int32_t place) const {
  const double exact = std::exp(place * std::log1p(precision_));
  std::array<char, 32> text;
  const auto end = std::to_chars(text.begin(), text.end(), exact, std::chars_format::general, 4);
  double rounded = exact;
  std::from_chars(text.begin(), end.ptr, rounded);
  return rounded;
}

double estimate_rate(const RateEstimateInput& input) {
  const scheduler::CostModel& cost = input.cost;
  const auto num_instances = static_cast<size_t>(cost.shape.num_instances);
  const double mean_held = input.mean_prompt_tokens + input.mean_output_tokens / 2.0;
  const auto step_us = [&](double num_rows) {
    scheduler::InstanceWork work;
    work.num_rows = static_cast<int32_t>(std::ceil(num_rows));
    work.num_attended_rows = work.num_rows;
    work.num_kv_tokens = std::llround(num_rows * mean_held);
    return cost.step(std::vector<scheduler::InstanceWork>(num_instances, work)).step_us;
  };
  const double num_tokens = input.mean_prompt_tokens + input.mean_output_tokens;
  const double num_fitting = static_cast<double>(input.kv_tokens_per_instance) / num_tokens;
  double most = std::min(num_fitting, static_cast<double>(input.max_num_seqs));
  double least = 0.0;
  if (step_us(most) > input.objectives.tpot_us) {
    constexpr int kNumHalvings = 30;
    for (int i = 0; i < kNumHalvings; ++i) {
      const double middle = (least + most) / 2.0;
      (step_us(middle) > input.objectives.tpot_us ? most : least) = middle;
    }
  }
  const double num_rows = most * static_cast<double>(num_instances);
  const double residence_s = input.mean_output_tokens * step_us(most) / 1e6;
  return std::clamp(num_rows / residence_s, kRateMin, kRateMax);
}

}  // namespace nanocp::sim
