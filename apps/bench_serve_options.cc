#include "apps/bench_serve_options.h"

#include <charconv>

#include "apps/in_range.h"
#include "apps/load_flags.h"
#include "apps/slo.h"

namespace nanocp::apps {
namespace {

constexpr double kSecondsMax = 1e6;
constexpr int64_t kTokensMax = 100'000'000;
constexpr double kDefaultDurationS = 60.0;
constexpr int kDefaultConcurrency = 8;

void add_target_group(CLI::App& command, BenchServeOptions& options) {
  const char* group = "Server";
  command
      .add_option("--base-url", options.base_url,
                  "Where it is; /v1 is added where it is missing. Plain http")
      ->type_name("URL")
      ->capture_default_str()
      ->group(group);
  command.add_option("--endpoint", options.endpoint, "completions or chat")
      ->check(CLI::IsMember({"completions", "chat"}).description(""))
      ->capture_default_str()
      ->group(group);
  command.add_option("--model", options.model, "Its name there (default: the first that it lists)")
      ->type_name("NAME")
      ->group(group);
  command.add_option("--api-key", options.api_key, "Sent as a bearer token")
      ->envname("OPENAI_API_KEY")
      ->type_name("KEY")
      ->group(group);
  command
      .add_option("--extra-body", options.extra_body,
                  "Members for each request's body, e.g. '{\"temperature\": 0}'; null takes one "
                  "away")
      ->type_name("JSON")
      ->group(group);
  command
      .add_flag("--stop-at-eos", options.stops_at_eos,
                "Answers end where the model ends them (default: ignore_eos is sent, so that they "
                "are as long as planned)")
      ->group(group);
}

void add_length_group(CLI::App& command, BenchServeOptions& options) {
  const char* group = "Prompts and lengths";
  add_length_flags(
      command, group,
      {.workload = options.workload,
       .workload_help = "Lengths in tokens, SHARE PROMPT -> OUTPUT ; ..., or issue(1); see "
                        "docs/simulate.md",
       .trace_file = options.trace_file,
       .rotate_trace = options.rotate_trace});
  command.add_option("--max-prompt-tokens", options.prompt_tokens_max, "Cut longer prompts")
      ->check(in_range<int64_t>(1, kTokensMax))
      ->type_name("TOKENS")
      ->group(group);
  command.add_option("--max-output-tokens", options.output_tokens_max, "Cut longer outputs")
      ->check(in_range<int64_t>(1, kTokensMax))
      ->type_name("TOKENS")
      ->group(group);
  command
      .add_option(
          "--prompts", options.prompts,
          "ids: random token ids; text: random words; auto: ids where the server takes them")
      ->check(CLI::IsMember({"auto", "ids", "text"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--token-ids", options.token_ids,
                  "Random ids are from here (default: 1000:30000, or 100:400 for a small "
                  "vocabulary)")
      ->type_name("LOW:HIGH")
      ->group(group);
  command
      .add_option("--prompt-file", options.prompt_file,
                  "Lines {\"prompt\": TEXT or IDS} or {\"messages\": [...]}, and perhaps "
                  "\"max_tokens\", instead of random prompts")
      ->type_name("JSONL")
      ->group(group);
}

void add_arrival_group(CLI::App& command, BenchServeOptions& options) {
  const char* group = "Load";
  CLI::Option* rate =
      command.add_option("--rate", options.rates,
                         "Open loop: requests per second, whatever the answers do; a run for each");
  rate->delimiter(',')->check(in_range(1e-6, 1e6))->type_name("LIST")->group(group);
  command
      .add_option("--concurrency", options.concurrencies,
                  "Closed loop: so many requests at a time; a run for each (default: 8)")
      ->delimiter(',')
      ->check(in_range(1, 100'000))
      ->type_name("LIST")
      ->excludes(rate)
      ->group(group);
  add_arrival_flags(command, group,
                    {.arrivals = options.arrivals, .arrivals_cv = options.arrivals_cv});
  command.add_option("--num-requests", options.num_requests, "Requests of a run")
      ->check(in_range<int64_t>(1, 100'000'000))
      ->type_name("N")
      ->group(group);
  command
      .add_option("--duration", options.duration_s,
                  "Time in which requests start (default: 60, unless --num-requests is given)")
      ->check(in_range(0.1, kSecondsMax))
      ->type_name("SECONDS")
      ->group(group);
  add_run_flags(command, group, {.warmup_s = options.warmup_s, .seeds = options.seeds});
}

void add_client_group(CLI::App& command, BenchServeOptions& options) {
  const char* group = "Client";
  const auto add_timeout = [&](const char* name, double& value, const char* help) {
    command.add_option(name, value, help)
        ->check(in_range(0.001, kSecondsMax))
        ->type_name("SECONDS")
        ->capture_default_str()
        ->group(group);
  };
  add_timeout("--connect-timeout", options.connect_timeout_s, "Until there is a connection");
  add_timeout("--first-byte-timeout", options.first_byte_timeout_s,
              "From a request's start to the first byte of its answer's body");
  add_timeout("--request-timeout", options.request_timeout_s, "From its start to its end");
  command.add_option("--threads", options.num_threads, "Loops that share the requests")
      ->check(in_range(1, 256))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-lag", options.max_lag_ms,
                  "A run whose client was later than this (P99) is said to be unreliable")
      ->check(in_range(0.1, 1e6))
      ->type_name("MS")
      ->capture_default_str()
      ->group(group);
}

void add_report_group(CLI::App& command, BenchServeOptions& options) {
  const char* group = "Report";
  command
      .add_option("--slo", options.slo,
                  "Objectives of a good request: tpot=50ms,ttft=2s,e2e=60s,percentile=99")
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  command.add_option("--json", options.json_file, "Write the results there (docs/bench-serve.md)")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--html", options.html_file,
                  "Write a page with charts there; it needs no other file and no network")
      ->type_name("FILE")
      ->group(group);
}

}  // namespace

void add_bench_serve_options(CLI::App& command, BenchServeOptions& options) {
  add_target_group(command, options);
  add_length_group(command, options);
  add_arrival_group(command, options);
  add_client_group(command, options);
  add_report_group(command, options);
}

Status check_bench_serve_options(BenchServeOptions& options) {
  NANOCP_RETURN_IF_ERROR(parse_slo_list(options.slo,
                                        {{"tpot", &options.objectives.tpot_us},
                                         {"ttft", &options.objectives.ttft_us},
                                         {"e2e", &options.objectives.e2e_us}},
                                        options.objectives.percentile));
  const bool is_traced = options.arrivals == "trace";
  if (is_traced && options.trace_file.empty()) {
    return invalid_argument("--arrivals trace needs --trace FILE");
  }
  if (is_traced && !options.concurrencies.empty()) {
    return invalid_argument("--arrivals trace is an open loop: use it without --concurrency");
  }
  if (options.endpoint == "chat" && options.prompts == "ids") {
    return invalid_argument("--prompts ids needs --endpoint completions: chats are of text");
  }
  if (!options.token_ids.empty()) {
    NANOCP_RETURN_IF_ERROR(parse_token_ids(options.token_ids));
    if (options.endpoint == "chat" || options.prompts == "text") {
      return invalid_argument("--token-ids is for random prompts of ids");
    }
  }
  if (options.rates.empty() && options.concurrencies.empty() && !is_traced) {
    options.concurrencies = {kDefaultConcurrency};
  }
  if (options.num_requests == 0 && options.duration_s == 0.0) {
    options.duration_s = kDefaultDurationS;
  }
  if (options.duration_s > 0.0 && options.warmup_s >= options.duration_s) {
    return invalid_argument("--warmup must be shorter than --duration: nothing would be measured");
  }
  return ok_status();
}

Result<load::TokenIdRange> parse_token_ids(const std::string& text) {
  load::TokenIdRange range;
  const char* const end = text.data() + text.size();
  const auto low = std::from_chars(text.data(), end, range.low);
  const bool has_low = low.ec == std::errc() && low.ptr != end && *low.ptr == ':';
  const auto high = has_low ? std::from_chars(low.ptr + 1, end, range.high) : low;
  const bool is_sane = has_low && high.ec == std::errc() && high.ptr == end && range.low >= 0 &&
                       range.low <= range.high;
  if (is_sane) return range;
  return invalid_argument("--token-ids: '" + text + "' is no range; write it as in 100:1000");
}

}  // namespace nanocp::apps
