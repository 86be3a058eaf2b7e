#include "apps/bench_serve_command.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench_serve_options.h"
#include "apps/bench_serve_page.h"
#include "apps/bench_serve_report.h"
#include "apps/bench_serve_target.h"
#include "apps/command_error.h"
#include "apps/generation_report.h"
#include "apps/grouped_number.h"
#include "apps/interrupt.h"
#include "apps/json_output.h"
#include "apps/open_file_limit.h"
#include "apps/progress_bar.h"
#include "apps/trace_file.h"
#include "base/random.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr double kEndlessS = 1e9;  // number of requests ends it

// Where lengths come from: a trace, or a mixture.
struct Lengths {
  std::vector<sim::Arrival> trace;
  std::unique_ptr<sim::LengthMixture> mixture;
};

Result<Lengths> read_lengths(const BenchServeOptions& options) {
  Lengths lengths;
  if (!options.trace_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(lengths.trace, read_trace(options.trace_file));
    return lengths;
  }
  NANOCP_ASSIGN_OR_RETURN(sim::LengthMixture mixture, sim::LengthMixture::parse(options.workload));
  lengths.mixture = std::make_unique<sim::LengthMixture>(std::move(mixture));
  return lengths;
}

void cut(const BenchServeOptions& options, sim::Arrival& arrival) {
  if (options.prompt_tokens_max > 0) {
    arrival.num_prompt_tokens = std::min(arrival.num_prompt_tokens, options.prompt_tokens_max);
  }
  if (options.output_tokens_max > 0) {
    arrival.num_output_tokens = std::min(arrival.num_output_tokens, options.output_tokens_max);
  }
}

using NextArrival = std::function<std::optional<sim::Arrival>()>;

// All arrivals of an open loop, made before it begins.
std::vector<sim::Arrival> open_arrivals(const BenchServeOptions& options, const Lengths& lengths,
                                        const ServeRun& run) {
  sim::LoadOptions load = {.process = sim::arrival_process(options.arrivals),
                           .cv = options.arrivals_cv,
                           .rate_per_s = run.rate_per_s,
                           .duration_s = options.duration_s > 0.0 ? options.duration_s : kEndlessS,
                           .is_rotated = options.rotate_trace};
  if (options.num_requests > 0) load.num_requests_max = options.num_requests;
  std::vector<sim::Arrival> arrivals =
      lengths.mixture ? sim::draw_load(*lengths.mixture, load, Random(run.seed))
                      : sim::replay_load(lengths.trace, load, Random(run.seed));
  for (sim::Arrival& arrival : arrivals) cut(options, arrival);
  return arrivals;
}

NextArrival each_of(std::vector<sim::Arrival> arrivals) {
  return [arrivals = std::move(arrivals), i = size_t{0}]() mutable {
    return i < arrivals.size() ? std::optional(arrivals[i++]) : std::nullopt;
  };
}

// Lengths without times, for a closed loop.
NextArrival lengths_of(const BenchServeOptions& options, const Lengths& lengths,
                       const ServeRun& run) {
  Random random(run.seed);
  const bool is_rotated = options.rotate_trace && !lengths.trace.empty();
  const uint64_t first = is_rotated ? random.below(lengths.trace.size()) : 0;
  return [&options, &lengths, random, first,
          i = int64_t{0}]() mutable -> std::optional<sim::Arrival> {
    if (options.num_requests > 0 && i >= options.num_requests) return std::nullopt;
    sim::Arrival arrival =
        lengths.mixture ? lengths.mixture->draw(random)
                        : lengths.trace[(first + static_cast<uint64_t>(i)) % lengths.trace.size()];
    ++i;
    cut(options, arrival);
    return arrival;
  };
}

// Shows how far a run is; asks whether to go on.
class Watcher {
 public:
  Watcher(const std::string& label, const InterruptGuard& guard)
      : bar_(label, ProgressBar::Unit::kNone), guard_(guard) {}

  // A run of so many requests, or of so much time.
  int64_t num_requests = 0;
  int64_t duration_us = 0;

  bool operator()(const load::LoadProgress& progress) {
    std::string note = grouped(progress.num_started - progress.num_ended) + " running, " +
                       grouped(progress.num_ended) + " done";
    if (progress.num_failed > 0) note += ", " + grouped(progress.num_failed) + " failed";
    const int64_t new_tokens = progress.num_tokens - last_.num_tokens;
    const int64_t new_us = progress.elapsed_us - last_.elapsed_us;
    if (new_us >= kRateIntervalUs) {
      tokens_per_s_ =
          std::llround(static_cast<double>(new_tokens) * 1e6 / static_cast<double>(new_us));
      last_ = progress;
    }
    note += ", " + grouped(tokens_per_s_) + " tokens/s";
    // The last requests end after the time is over.
    const int64_t total = num_requests > 0 ? num_requests : duration_us;
    const int64_t done =
        num_requests > 0 ? progress.num_ended : std::min(progress.elapsed_us, total - 1);
    bar_.update(std::max<int64_t>(0, done), total, note);
    return !guard_.interrupted();
  }

 private:
  static constexpr int64_t kRateIntervalUs = 1'000'000;

  ProgressBar bar_;
  const InterruptGuard& guard_;
  load::LoadProgress last_;
  int64_t tokens_per_s_ = 0;
};

Result<ServeRun> run_one(const BenchServeOptions& options, const ServeSubject& subject,
                         const Lengths& lengths, ServeRun run, const InterruptGuard& guard) {
  Watcher watch(serve_level(run.rate_per_s, run.concurrency), guard);
  load::LoadSetup setup;
  setup.client = subject.client;
  setup.num_threads = options.num_threads;
  setup.concurrency = run.concurrency;
  setup.warmup_us = std::llround(options.warmup_s * 1e6);
  watch.num_requests = options.num_requests;
  if (options.duration_s > 0.0) {
    setup.duration_us = watch.duration_us = std::llround(options.duration_s * 1e6);
  }
  if (run.concurrency > 0) {
    setup.next = lengths_of(options, lengths, run);
  } else {
    std::vector<sim::Arrival> arrivals = open_arrivals(options, lengths, run);
    if (arrivals.empty()) {
      return invalid_argument("no request arrives within --duration at that rate");
    }
    watch.num_requests = static_cast<int64_t>(arrivals.size());
    setup.next = each_of(std::move(arrivals));
  }
  const auto prompts = subject.prompts(run.prompt_seed);
  setup.make = [&subject, prompts](int64_t index, sim::Arrival& planned) {
    const std::string prompt = prompts->make(index, planned);
    return subject.target.request(prompt, planned.num_output_tokens);
  };
  NANOCP_ASSIGN_OR_RETURN(run.result, load::run_load(setup, std::ref(watch)));
  run.metrics = load::compute_serve_metrics(run.result, options.objectives);
  return run;
}

// The runs that are asked for, without results.
Result<std::vector<ServeRun>> plan_runs(const BenchServeOptions& options, const Lengths& lengths) {
  std::vector<double> rates = options.rates;
  if (rates.empty() && options.concurrencies.empty()) {
    rates = {sim::native_rate_per_s(lengths.trace)};
    if (rates[0] <= 0.0) return invalid_argument("--trace: it has no rate of its own; give --rate");
  }
  std::vector<ServeRun> runs;
  const auto add_run = [&runs](uint64_t seed) -> ServeRun& {
    const uint64_t number = runs.size();
    ServeRun& run = runs.emplace_back();
    run.seed = seed;
    run.prompt_seed = counter_random(seed, number);
    return run;
  };
  for (const uint64_t seed : options.seeds) {
    for (const double rate : rates) add_run(seed).rate_per_s = rate;
    for (const int concurrency : options.concurrencies) add_run(seed).concurrency = concurrency;
  }
  return runs;
}

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  char text[32] = "";
  if (gmtime_r(&now, &parts) != nullptr) {
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  }
  return text;
}

Status write_reports(const BenchServeOptions& options, const json& document) {
  if (!options.json_file.empty()) {
    NANOCP_RETURN_IF_ERROR(write_file(options.json_file, json_text(document)));
  }
  if (options.html_file.empty()) return ok_status();
  return write_file(options.html_file, serve_page(document));
}

// A run in which nothing went well shall not look like one that did.
Status check_any_finished(const std::vector<ServeRun>& runs) {
  int64_t num_finished = 0;
  for (const ServeRun& run : runs) num_finished += run.metrics.all.num_finished;
  if (num_finished > 0) return ok_status();
  return Error{ErrorCode::kInternal, "no measured request finished"};
}

Result<int> bench_serve(BenchServeOptions options) {
  NANOCP_RETURN_IF_ERROR(check_bench_serve_options(options));
  NANOCP_ASSIGN_OR_RETURN(const Lengths lengths, read_lengths(options));
  NANOCP_ASSIGN_OR_RETURN(std::vector<ServeRun> runs, plan_runs(options, lengths));
  int num_at_a_time = 0;  // an open loop may need any number
  for (const int one : options.concurrencies) num_at_a_time = std::max(num_at_a_time, one);
  NANOCP_RETURN_IF_ERROR(allow_open_files(num_at_a_time));
  NANOCP_ASSIGN_OR_RETURN(const ServeSubject subject, find_subject(options));
  std::printf("%s at %s, %s, %s; TTFT, TPOT and ITL in ms\n", terminal_safe(subject.model).c_str(),
              options.base_url.c_str(), options.endpoint.c_str(), subject.prompts_text.c_str());
  print_serve_header();
  json document =
      serve_json(options, {.model = subject.model, .prompts = subject.prompts_text}, utc_now());
  const InterruptGuard guard;
  size_t num_done = 0;
  while (num_done < runs.size() && !guard.interrupted()) {
    ServeRun& run = runs[num_done++];
    NANOCP_ASSIGN_OR_RETURN(run, run_one(options, subject, lengths, std::move(run), guard));
    print_serve_run(options, run);
    document["runs"].push_back(serve_run_json(options, run));
    run.result = {};  // it is in the document
  }
  runs.resize(num_done);
  NANOCP_RETURN_IF_ERROR(write_reports(options, document));
  if (guard.interrupted()) return kInterruptedExitCode;
  NANOCP_RETURN_IF_ERROR(check_any_finished(runs));
  return 0;
}

}  // namespace

void add_bench_serve_command(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "serve", "Load a server of OpenAI's API and measure its answers; see docs/bench-serve.md");
  const auto options = std::make_shared<BenchServeOptions>();
  add_bench_serve_options(*command, *options);
  command->callback([options, &exit_code] {
    const Result<int> result = bench_serve(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
