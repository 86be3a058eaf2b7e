#include "apps/bench_command.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "apps/bench_compare.h"
#include "apps/bench_load_command.h"
#include "apps/bench_serve_command.h"
#include "apps/chrome_trace.h"
#include "apps/command_error.h"
#include "apps/context_lengths.h"
#include "apps/decode_bench.h"
#include "apps/engine_session.h"
#include "apps/in_range.h"
#include "apps/json_output.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

struct BenchOptions {
  EngineOptions engine;
  std::string contexts = "4096x64";
  uint64_t context_seed = 1;
  std::string context_file;       // goes before `contexts`
  double read_bandwidth_gbs = 0;  // of one device; 0: not known
  bool per_instance = false;
  int num_steps = 50;
  int num_warmup_steps = 5;
  std::vector<std::string> policies;  // empty: the one of --policy
  bool profile = false;
  std::string json_file;
  std::string trace_file;
};

struct PolicyReport {
  std::string policy;
  DecodeReport report;
};

Result<std::vector<int64_t>> list_contexts(const BenchOptions& options) {
  if (!options.context_file.empty()) return read_context_file(options.context_file);
  NANOCP_ASSIGN_OR_RETURN(const std::vector<ContextGroup> groups, parse_contexts(options.contexts));
  return draw_contexts(groups, options.per_instance ? options.engine.num_instances : 1,
                       options.context_seed);
}

SessionNeeds needs_of(const BenchOptions& options, const std::vector<int64_t>& contexts) {
  SessionNeeds needs;
  needs.any_length = true;
  needs.profile = options.profile || !options.trace_file.empty();
  needs.time_steps = true;
  for (const int64_t num_tokens : contexts) {
    needs.request_tokens.push_back(num_tokens + options.num_steps + options.num_warmup_steps + 66);
  }
  return needs;
}

// Bytes per microsecond are MB/s.
double read_gbs(const DecodeReport& report, const StepBytes& bytes) {
  return bytes.read() / report.tpot.mean_us / 1e3;
}

void print_bytes(const DecodeReport& report, const StepBytes& bytes, double read_bandwidth_gbs) {
  constexpr double kMb = 1e6;
  std::printf("; MB per step: weights %.1f, KV %.1f", bytes.weights / kMb, bytes.kv / kMb);
  if (report.instances.size() > 1) {
    std::printf(", sent: query %.3f, partial %.3f, dispatch %.3f, combine %.3f", bytes.query / kMb,
                bytes.partial / kMb, bytes.dispatch / kMb, bytes.combine / kMb);
  }
  const double gbs = read_gbs(report, bytes);
  std::printf("; read %.1f GB/s", gbs);
  if (read_bandwidth_gbs > 0.0) {
    std::printf(" (%.0f %% of bandwidth)", 100.0 * gbs / read_bandwidth_gbs);
  }
}

void print_report(const PolicyReport& result, double read_bandwidth_gbs) {
  const DecodeReport& report = result.report;
  std::printf("%-14s TPOT mean %.3f ms, P50 %.3f, P99 %.3f; %.0f tokens/s; degrees",
              result.policy.c_str(), report.tpot.mean_us / 1e3, report.tpot.p50_us / 1e3,
              report.tpot.p99_us / 1e3, report.tokens_per_s);
  for (size_t degree = 0; degree < report.num_by_degree.size(); ++degree) {
    if (report.num_by_degree[degree] == 0) continue;
    std::printf(" %zu:%lld", degree, static_cast<long long>(report.num_by_degree[degree]));
  }
  std::printf("; host gap %.1f us", report.host_gap_us);
  if (report.straggler_ratio > 0.0) std::printf("; straggler ratio %.3f", report.straggler_ratio);
  std::printf("\n");
  for (size_t i = 0; i < report.instances.size(); ++i) {
    const InstanceReport& instance = report.instances[i];
    std::printf("  instance %zu: %lld rows, %lld KV tokens", i,
                static_cast<long long>(instance.num_rows),
                static_cast<long long>(instance.num_kv_tokens));
    if (!report.last_spans.empty()) {
      for (int p = 0; p < engine::kNumPhases; ++p) {
        std::printf("%s %s %.0f", p == 0 ? "; us per step:" : ",",
                    to_string(static_cast<engine::Phase>(p)),
                    instance.phase_us[static_cast<size_t>(p)]);
      }
    }
    print_bytes(report, instance.bytes, read_bandwidth_gbs);
    std::printf("\n");
  }
}

json report_json(const PolicyReport& result) {
  const DecodeReport& report = result.report;
  json instances = json::array();
  for (const InstanceReport& instance : report.instances) {
    const StepBytes& bytes = instance.bytes;
    json entry = {{"num_rows", instance.num_rows},
                  {"num_kv_tokens", instance.num_kv_tokens},
                  {"bytes",
                   {{"weights", bytes.weights},
                    {"kv", bytes.kv},
                    {"query", bytes.query},
                    {"partial", bytes.partial},
                    {"dispatch", bytes.dispatch},
                    {"combine", bytes.combine}}},
                  {"read_gb_per_s", read_gbs(report, bytes)}};
    if (!report.last_spans.empty()) {
      for (int p = 0; p < engine::kNumPhases; ++p) {
        entry["phase_us"][to_string(static_cast<engine::Phase>(p))] =
            instance.phase_us[static_cast<size_t>(p)];
      }
    }
    instances.push_back(std::move(entry));
  }
  return {{"policy", result.policy},
          {"tpot_us",
           {{"mean", report.tpot.mean_us},
            {"p50", report.tpot.p50_us},
            {"p99", report.tpot.p99_us},
            {"min", report.tpot.min_us},
            {"max", report.tpot.max_us}}},
          {"tokens_per_s", report.tokens_per_s},
          {"straggler_ratio", report.straggler_ratio},
          {"host_gap_us", report.host_gap_us},
          {"num_requests", report.num_requests},
          {"num_requests_by_degree", report.num_by_degree},
          {"instances", std::move(instances)}};
}

Status write_json(const BenchOptions& options, const EngineSession& session,
                  const std::vector<PolicyReport>& results) {
  json runs = json::array();
  for (const PolicyReport& result : results) runs.push_back(report_json(result));
  const json document = {
      {"benchmark", "decode"},
      {"device", session.device_name()},
      {"model",
       options.engine.config_file.empty() ? options.engine.model_dir : options.engine.config_file},
      {"num_instances", options.engine.num_instances},
      {"block_size", block_size(options.engine)},
      {"kv_cache_dtype", tensor::to_string(kv_format(options.engine))},
      {"num_kv_blocks", session.num_kv_blocks()},
      {"contexts", options.context_file.empty() ? options.contexts : options.context_file},
      {"context_seed", options.context_seed},
      {"per_instance", options.per_instance},
      {"num_steps", options.num_steps},
      {"num_warmup_steps", options.num_warmup_steps},
      {"read_bandwidth_gb_per_s", options.read_bandwidth_gbs},
      {"graphs", !options.engine.enforce_eager && options.engine.exchange != "nccl"},
      {"exchange", options.engine.exchange},
      {"async_scheduling", options.engine.async_scheduling},
      {"runs", std::move(runs)}};
  return write_file(options.json_file, json_text(document));
}

Result<int> bench_decode(BenchOptions options) {
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  NANOCP_ASSIGN_OR_RETURN(std::vector<int64_t> contexts, list_contexts(options));
  // The longest first: they have the most to gain from an empty cache.
  std::sort(contexts.begin(), contexts.end(), std::greater<>());
  if (options.policies.empty()) options.policies = {policy_name(options.engine)};
  options.engine.policy = options.policies.front();
  NANOCP_ASSIGN_OR_RETURN(const std::unique_ptr<EngineSession> session,
                          EngineSession::open(options.engine, spec, needs_of(options, contexts)));
  std::printf("%zu requests on %d x %s\n", contexts.size(), options.engine.num_instances,
              session->device_name().c_str());
  std::vector<PolicyReport> results;
  for (const std::string& policy : options.policies) {
    options.engine.policy = policy;
    NANOCP_RETURN_IF_ERROR(session->restart(options.engine, *spec));
    NANOCP_ASSIGN_OR_RETURN(
        DecodeReport report,
        run_decode_bench(session->engine(),
                         {.contexts = contexts,
                          .num_warmup_steps = options.num_warmup_steps,
                          .num_steps = options.num_steps,
                          .spec = spec.get(),
                          .formats = {.value_bytes = options.engine.device == "cuda" ? 2 : 4,
                                      .kv = kv_format(options.engine)}}));
    results.push_back({policy, std::move(report)});
    print_report(results.back(), options.read_bandwidth_gbs);
    std::fflush(stdout);
  }
  if (!options.json_file.empty()) {
    NANOCP_RETURN_IF_ERROR(write_json(options, *session, results));
  }
  if (!options.trace_file.empty()) {
    NANOCP_RETURN_IF_ERROR(
        write_file(options.trace_file, chrome_trace(results.back().report.last_spans)));
  }
  return 0;
}

void add_decode_options(CLI::App& command, BenchOptions& options) {
  command.add_option("MODEL_DIR", options.engine.model_dir, "Hugging Face checkpoint");
  const char* group = "Benchmark";
  command
      .add_option(
          "--context", options.contexts,
          "Context lengths, LENGTHxREQUESTS[,...]; their K/V is synthetic. A LENGTH is "
          "TOKENS, or drawn: uniform(LOW,HIGH), loguniform(LOW,HIGH), lognormal(LOW,HIGH) "
          "(of which 9 in 10 lie between) and others of docs/simulate.md; 4k is 4,000, e.g. "
          "lognormal(1k,4k)x61,loguniform(32k,256k)x3")
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  command.add_option("--context-seed", options.context_seed, "Seed of lengths that are drawn")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--read-bandwidth", options.read_bandwidth_gbs,
                  "What a device's memory gives at best, to report the share that is reached")
      ->check(in_range(0.001, 1e6))
      ->type_name("GB/S")
      ->group(group);
  command
      .add_option("--context-file", options.context_file,
                  "Context lengths, one a line (first field of a CSV), instead of --context")
      ->type_name("FILE")
      ->group(group);
  command.add_flag("--per-instance", options.per_instance, "So many requests for each instance")
      ->group(group);
  command.add_option("--num-steps", options.num_steps, "Measured steps")
      ->check(in_range(1, 1'000'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--warmup", options.num_warmup_steps, "Steps before them")
      ->check(in_range(0, 1'000'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--policies", options.policies,
                  "Policies to run one after another (default: --policy)")
      ->delimiter(',')
      ->type_name("NAMES")
      ->group(group);
  command
      .add_flag("--profile", options.profile,
                "Time the phases of every step (GPU; costs about 1 us per phase and layer)")
      ->group(group);
  command.add_option("--json", options.json_file, "Write the results there")
      ->type_name("FILE")
      ->group("Output");
  command
      .add_option("--trace", options.trace_file,
                  "Write the last step's timeline in Chrome's trace form (implies --profile)")
      ->type_name("FILE")
      ->group("Output");
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "Measure the engine, or a server");
  bench->require_subcommand(1);
  CLI::App* decode =
      bench->add_subcommand("decode", "Time per output token of decoding, with synthetic K/V");
  const auto options = std::make_shared<BenchOptions>();
  add_decode_options(*decode, *options);
  add_engine_options(*decode, options->engine);
  decode->callback([options, &exit_code] {
    const Result<int> result = bench_decode(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
  add_bench_serve_command(*bench, exit_code);
  add_bench_compare_command(*bench, exit_code);
  add_bench_load_command(*bench, exit_code);
}

}  // namespace nanocp::apps
