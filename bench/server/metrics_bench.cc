// What observing costs the engine's thread, per step and per finished request, and what a scrape
// costs the thread that asks; in CPU time of the thread.
//
// Usage: metrics_bench [--steps N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "server/observability.h"

namespace nanocp::server {
namespace {

double thread_cpu_s() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Fastest of five, in microseconds per call.
template <typename Call>
double time_us(int num_calls, Call call) {
  double best_s = 1e9;
  for (int round = 0; round < 5; ++round) {
    const double start_s = thread_cpu_s();
    for (int i = 0; i < num_calls; ++i) call();
    best_s = std::min(best_s, thread_cpu_s() - start_s);
  }
  return best_s * 1e6 / num_calls;
}

ClusterSnapshot make_snapshot(int num_instances) {
  ClusterSnapshot snapshot;
  snapshot.policy = "dcp";
  snapshot.block_size = 64;
  snapshot.instances.resize(static_cast<size_t>(num_instances));
  snapshot.num_by_degree.resize(9);
  for (size_t i = 0; i < kLongRequestsMax; ++i) {
    LongRequest& request = snapshot.long_requests.emplace_back();
    request.sequence = i + 1;
    request.kv_tokens = {{0, 1000}, {1, 1000}, {2, 1000}};
  }
  return snapshot;
}

void run(int num_steps) {
  const SteadyClock clock;
  ClusterInfo info;
  info.model = "demo";
  info.max_model_len = 131072;
  Observability observability(info, clock, nullptr);
  Random random(1);
  for (const size_t num_rows : {64, 1024, 9216}) {
    std::vector<double> times(num_rows);
    for (double& time_s : times) time_s = 0.01 + static_cast<double>(random.next() % 1000) * 1e-4;
    const StepRecord step = {.start_us = 1,
                             .end_us = 30'000,
                             .num_tokens = static_cast<int64_t>(num_rows),
                             .inter_token_s = times};
    const double step_us = time_us(num_steps, [&] { observability.on_step(step); });
    std::printf("step of %5zu sequences: %8.2f us, %5.1f ns each\n", num_rows, step_us,
                1e3 * step_us / static_cast<double>(num_rows));
  }
  SequenceRecord record;
  record.request_id = "0123456789abcdef0123456789abcdef";
  record.num_output_tokens = 100;
  record.arrival_us = 1;
  record.scheduled_us = 2;
  record.first_token_us = 3;
  record.last_token_us = record.end_us = 4'000'000;
  record.finish_reason = request::FinishReason::kStop;
  record.summary.kv_tokens = {{0, 100}, {1, 100}};
  std::printf("end of a request:       %8.2f us\n",
              time_us(num_steps, [&] { observability.on_end(record); }));
  for (const int num_instances : {4, 64}) {
    const ClusterSnapshot snapshot = make_snapshot(num_instances);
    std::printf("%2d instances: snapshot %6.2f us, /metrics %7.1f us, /cluster %7.1f us\n",
                num_instances, time_us(num_steps, [&] { observability.on_snapshot(snapshot); }),
                time_us(20, [&] { observability.metrics_text(snapshot); }),
                time_us(20, [&] { observability.cluster(snapshot, true, "since=0"); }));
  }
}

}  // namespace
}  // namespace nanocp::server

int main(int argc, char** argv) {
  int num_steps = 1000;
  if (argc == 3 && std::strcmp(argv[1], "--steps") == 0) num_steps = std::atoi(argv[2]);
  if (num_steps < 1 || (argc != 1 && argc != 3)) {
    std::fprintf(stderr, "usage: metrics_bench [--steps N]\n");
    return 2;
  }
  nanocp::server::run(num_steps);
  return 0;
}
