#include "model/phase_clock.h"

#include <gtest/gtest.h>

namespace nanocp::model {
namespace {

TEST(PhaseClock, MarksAreInOrderOfTimeAndNameTheirLayer) {
  PhaseClock phases(true);
  for (int step = 0; step < 2; ++step) {
    phases.start_step();
    phases.mark(StepPhase::kDense);
    phases.set_layer(3);
    phases.mark(StepPhase::kAttention);
    phases.set_layer(-1);
    phases.mark(StepPhase::kHead);
    phases.end_step();
    const auto& marks = phases.marks();
    ASSERT_EQ(marks.size(), 3U);  // a step forgets those of the one before
    EXPECT_EQ(marks[0].layer, -1);
    EXPECT_EQ(marks[1].layer, 3);
    EXPECT_EQ(marks[1].phase, StepPhase::kAttention);
    EXPECT_EQ(marks[2].layer, -1);
    EXPECT_GE(marks[0].at_us, 0.0);
    EXPECT_LE(marks[0].at_us, marks[1].at_us);
    EXPECT_LE(marks[1].at_us, marks[2].at_us);
    EXPECT_LE(marks[2].at_us, phases.end_us());
  }
}

TEST(PhaseClock, KeepsNothingWhenOff) {
  PhaseClock phases(false);
  phases.start_step();
  phases.mark(StepPhase::kDense);
  phases.end_step();
  EXPECT_TRUE(phases.marks().empty());
}

}  // namespace
}  // namespace nanocp::model
