// How long outputs get, learnt from all that have begun: of those that reach a length, the share
// that ends before the next one. Outputs that go on count as far as they have come, so that the
// short ones, which end first, do not pass for all. Lengths are told apart in classes a quarter of
// a doubling wide; old outputs count less and less. Owned by GrowthForecast; one thread, fixed
// size, no randomness.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace nanocp::scheduler {

// Lengths below 4 are classes of their own, then each doubling has four.
constexpr int32_t kNumOutputClasses = 64;  // the last one has all from 114,688 on

constexpr int32_t output_class(int64_t num_outputs) {
  if (num_outputs < 4) return static_cast<int32_t>(num_outputs < 0 ? 0 : num_outputs);
  const auto octave = static_cast<int32_t>(std::bit_width(static_cast<uint64_t>(num_outputs))) - 1;
  const auto quarter = static_cast<int32_t>((num_outputs >> (octave - 2)) & 3);
  const int32_t found = 4 * (octave - 1) + quarter;
  return found < kNumOutputClasses ? found : kNumOutputClasses - 1;
}
// The shortest length of a class; of the one behind the last, where that would end.
constexpr int64_t output_class_begin(int32_t idx) {
  if (idx < 4) return idx;
  return int64_t{4 + idx % 4} << (idx / 4 - 1);
}

class OutputHistory {
 public:
  // [class], and one behind the last.
  using Shares = std::array<double, kNumOutputClasses + 1>;

  // An output that was in class `from`, -1 for one that begins, is in class `to` now. Requires:
  // from <= to.
  void reach(int32_t from, int32_t to);
  // An output has ended in this class, which it has reached.
  void end(int32_t idx);
  // Changes with each end.
  int64_t num_ended() const { return num_ended_; }

  // Share of outputs that have at least so many tokens at the beginning of each class. Where none
  // has been seen yet, an output that has n tokens is taken to have another 512 + n with a chance
  // of one half.
  Shares shares_reaching() const;

 private:
  std::array<int64_t, kNumOutputClasses> num_reaching_{};
  std::array<int64_t, kNumOutputClasses> num_ending_{};
  int64_t num_ended_ = 0;
};

// The same for any length, from what shares_reaching() gave: lengths of a class lie evenly in it.
double share_reaching(const OutputHistory::Shares& shares, double num_outputs);

}  // namespace nanocp::scheduler
