#include "model/load_jobs.h"

#include <gtest/gtest.h>

#include <atomic>

namespace nanocp::model {
namespace {

TEST(LoadJobs, EachRunsOnceOnAnyNumberOfThreads) {
  for (const int num_threads : {-1, 1, 2, 7, 100}) {
    std::vector<std::atomic<int>> runs(50);
    std::vector<LoadJob> jobs;
    for (auto& run : runs) jobs.push_back({.bytes = 3, .run = [&run] { ++run; }});
    int64_t last_done = 0;
    run_load_jobs(jobs, num_threads, [&](int64_t done_bytes, int64_t total_bytes) {
      EXPECT_GT(done_bytes, last_done);
      EXPECT_EQ(total_bytes, 150);
      last_done = done_bytes;
    });
    for (const auto& run : runs) EXPECT_EQ(run, 1);
    EXPECT_EQ(last_done, 150);
  }
}

TEST(LoadJobs, NoJobsMeansNoProgress) {
  run_load_jobs({}, 4, [](int64_t, int64_t) { ADD_FAILURE(); });
}

TEST(LoadJobs, ProgressIsReportedAtMostTwoHundredTimes) {
  std::vector<LoadJob> jobs(10'000, LoadJob{.bytes = 1, .run = [] {}});
  int num_reports = 0;
  run_load_jobs(jobs, 2, [&](int64_t, int64_t) { ++num_reports; });
  EXPECT_GT(num_reports, 100);
  EXPECT_LE(num_reports, 201);
}

}  // namespace
}  // namespace nanocp::model
