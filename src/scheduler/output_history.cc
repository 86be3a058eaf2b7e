#include "scheduler/output_history.h"

#include <algorithm>

#include "base/check.h"

namespace nanocp::scheduler {
namespace {

constexpr double kMedianUnseen = 512.0;  // tokens
constexpr double kWeightUnseen = 4.0;    // as if so many outputs had been seen
constexpr int64_t kCountsMax = 2048;     // then all are halved, so that the load may change
constexpr double kLeastGoingOn = 1.0 / 64.0;

double unseen_share_reaching(int32_t idx) {
  return kMedianUnseen / (kMedianUnseen + static_cast<double>(output_class_begin(idx)));
}

}  // namespace

void OutputHistory::reach(int32_t from, int32_t to) {
  NANOCP_CHECK_LE(from, to);
  NANOCP_CHECK_LT(to, kNumOutputClasses);
  for (int32_t i = from + 1; i <= to; ++i) ++num_reaching_[static_cast<size_t>(i)];
  if (num_reaching_[0] < kCountsMax) return;
  for (int64_t& count : num_reaching_) count -= count / 2;
  for (int64_t& count : num_ending_) count /= 2;
}

void OutputHistory::end(int32_t idx) {
  ++num_ending_[static_cast<size_t>(idx)];
  ++num_ended_;
}

OutputHistory::Shares OutputHistory::shares_reaching() const {
  Shares shares;
  shares[0] = 1.0;
  for (int32_t i = 0; i < kNumOutputClasses; ++i) {
    const auto at = static_cast<size_t>(i);
    const double unseen_here = kWeightUnseen * unseen_share_reaching(i);
    const double unseen_next = kWeightUnseen * unseen_share_reaching(i + 1);
    const double num_reaching = static_cast<double>(num_reaching_[at]) + unseen_here;
    const double num_ending = static_cast<double>(num_ending_[at]) + unseen_here - unseen_next;
    shares[at + 1] = shares[at] * std::max(kLeastGoingOn, 1.0 - num_ending / num_reaching);
  }
  return shares;
}

double share_reaching(const OutputHistory::Shares& shares, double num_outputs) {
  const int32_t idx = output_class(static_cast<int64_t>(num_outputs));
  const auto at = static_cast<size_t>(idx);
  const auto begin = static_cast<double>(output_class_begin(idx));
  const auto end = static_cast<double>(output_class_begin(idx + 1));
  const double part = std::min(1.0, (num_outputs - begin) / (end - begin));
  return shares[at] + part * (shares[at + 1] - shares[at]);
}

}  // namespace nanocp::scheduler
