#include "apps/decode_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace nanocp::apps {
namespace {

constexpr int kAdmissionStepsMax = 64;  // to get all requests running

double straggler_ratio(const std::vector<InstanceReport>& instances) {
  double largest = 0.0;
  double sum = 0.0;
  for (const InstanceReport& instance : instances) {
    double busy_us = -instance.phase_us[static_cast<size_t>(engine::Phase::kIdleWait)];
    for (const double us : instance.phase_us) busy_us += us;
    largest = std::max(largest, busy_us);
    sum += busy_us;
  }
  return sum > 0.0 ? largest * static_cast<double>(instances.size()) / sum : 0.0;
}

class DecodeBench {
 public:
  DecodeBench(engine::Engine& engine, const DecodeBenchOptions& options)
      : engine_(engine), options_(options) {}

  Result<DecodeReport> run() {
    NANOCP_RETURN_IF_ERROR(add_requests());
    NANOCP_RETURN_IF_ERROR(start_all());
    for (int i = 0; i < options_.num_warmup_steps; ++i) NANOCP_RETURN_IF_ERROR(step());
    for (int i = 0; i < options_.num_steps; ++i) {
      const auto start = std::chrono::steady_clock::now();
      NANOCP_RETURN_IF_ERROR(step());
      const std::chrono::duration<double, std::micro> elapsed =
          std::chrono::steady_clock::now() - start;
      step_us_.push_back(elapsed.count());
      add_phases();
      add_gaps();
    }
    fill_report();
    for (const SequenceId id : ids_) static_cast<void>(engine_.cancel(id));
    return report_;
  }

 private:
  Status add_requests() {
    const int num_outputs = kAdmissionStepsMax + options_.num_warmup_steps + options_.num_steps + 2;
    for (const int64_t num_tokens : options_.contexts) {
      NANOCP_ASSIGN_OR_RETURN(const SequenceId id, engine_.add_request(synthetic_request(
                                                       num_tokens, num_outputs, ids_.size() + 1)));
      ids_.push_back(id);
    }
    return ok_status();
  }

  bool runs(SequenceId id) const {
    const request::Sequence* sequence = engine_.sequence(id);
    return sequence != nullptr && sequence->is_decoding();
  }

  bool all_run() const {
    return std::all_of(ids_.begin(), ids_.end(), [this](SequenceId id) { return runs(id); });
  }

  Status start_all() {
    for (int i = 0; i < kAdmissionStepsMax; ++i) {
      if (all_run()) return ok_status();
      NANOCP_RETURN_IF_ERROR(step());
    }
    const auto num_waiting =
        ids_.size() - static_cast<size_t>(std::count_if(
                          ids_.begin(), ids_.end(), [this](SequenceId id) { return runs(id); }));
    return resource_exhausted(
        "the contexts do not all fit at once: after " + std::to_string(kAdmissionStepsMax) +
        " steps " + std::to_string(num_waiting) + " of " + std::to_string(ids_.size()) +
        " requests still wait; use fewer or shorter ones, more KV blocks (--num-kv-blocks, on a "
        "GPU --gpu-memory-utilization) or a higher --max-num-seqs");
  }

  Status step() {
    const auto events = engine_.step();
    if (!events.ok()) return events.error();
    return ok_status();
  }

  void add_phases() {
    const auto spans = engine_.last_spans();
    report_.instances.resize(engine_.loads().size());
    for (size_t i = 0; i < spans.size(); ++i) {
      for (const engine::PhaseSpan& span : spans[i]) {
        report_.instances[i].phase_us[static_cast<size_t>(span.phase)] +=
            span.duration_us / options_.num_steps;
      }
    }
  }

  void add_gaps() {
    const auto idle_us = engine_.last_idle_us();
    for (const double us : idle_us) {
      report_.host_gap_us +=
          us / static_cast<double>(idle_us.size()) / static_cast<double>(options_.num_steps);
    }
  }

  void fill_report() {
    report_.tpot = step_stats(step_us_);
    report_.num_requests = static_cast<int64_t>(ids_.size());
    report_.tokens_per_s = static_cast<double>(ids_.size()) / report_.tpot.mean_us * 1e6;
    const auto loads = engine_.loads();
    report_.num_by_degree.assign(loads.size() + 1, 0);
    for (size_t i = 0; i < loads.size(); ++i) {
      report_.instances[i].num_rows = loads[i].num_sequences;
      report_.instances[i].num_kv_tokens = loads[i].num_kv_tokens;
    }
    for (const SequenceId id : ids_) {
      const auto& shards = engine_.placement(id)->shards();
      const auto degree = std::count_if(shards.begin(), shards.end(),
                                        [](const auto& shard) { return shard.num_tokens > 0; });
      ++report_.num_by_degree[static_cast<size_t>(degree)];
    }
    report_.straggler_ratio = straggler_ratio(report_.instances);
    report_.last_spans.assign(engine_.last_spans().begin(), engine_.last_spans().end());
    if (options_.spec == nullptr) return;
    const auto bytes = count_step_bytes(*options_.spec, engine_, ids_, options_.formats);
    for (size_t i = 0; i < bytes.size(); ++i) report_.instances[i].bytes = bytes[i];
  }

  engine::Engine& engine_;
  const DecodeBenchOptions& options_;
  std::vector<SequenceId> ids_;
  std::vector<double> step_us_;
  DecodeReport report_;
};

}  // namespace

request::Request synthetic_request(int64_t num_tokens, int num_outputs, uint64_t seed) {
  request::Request request;
  request.prompt.assign(static_cast<size_t>(num_tokens), 1);
  request.sampling.temperature = 1.0F;
  request.sampling.seed = seed;
  request.max_tokens = num_outputs;
  request.ignore_eos = true;
  request.synthetic_kv = true;
  return request;
}

StepStats step_stats(std::vector<double> step_us) {
  std::sort(step_us.begin(), step_us.end());
  const auto rank = [&](double share) {
    const auto count = static_cast<double>(step_us.size());
    return step_us[static_cast<size_t>(std::max(1.0, std::ceil(share * count))) - 1];
  };
  double sum = 0.0;
  for (const double us : step_us) sum += us;
  return {.mean_us = sum / static_cast<double>(step_us.size()),
          .p50_us = rank(0.5),
          .p99_us = rank(0.99),
          .min_us = step_us.front(),
          .max_us = step_us.back()};
}

Result<DecodeReport> run_decode_bench(engine::Engine& engine, const DecodeBenchOptions& options) {
  return DecodeBench(engine, options).run();
}

}  // namespace nanocp::apps
