#include "apps/verify_command.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "apps/command_error.h"
#include "apps/engine_session.h"
#include "apps/generation_report.h"
#include "apps/golden_file.h"
#include "apps/in_range.h"
#include "apps/interrupt.h"
#include "apps/json_output.h"
#include "apps/verification.h"
#include "apps/verify_tokenizer.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

struct VerifyOptions {
  EngineOptions engine;
  std::string golden_file;    // empty: MODEL_DIR/golden.json
  std::string tokenizer_dir;  // not empty: check this folder's tokenizer, not a model
  double tolerance = 2e-3;
  bool as_json = false;
};

struct Totals {
  double largest_error = 0.0;
  int num_mismatches = 0;
  int num_ties = 0;
  int num_failed = 0;

  bool passed() const { return num_failed == 0; }
};

Totals add_up(const std::vector<CaseReport>& reports, double tolerance) {
  Totals totals;
  for (const CaseReport& report : reports) {
    totals.largest_error = std::max(totals.largest_error, report.largest_error());
    totals.num_mismatches += report.mismatch ? 1 : 0;
    totals.num_ties += report.tie ? 1 : 0;
    totals.num_failed += report.passes(tolerance) ? 0 : 1;
  }
  return totals;
}

std::string format_error(double error) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2e", error);
  return text;
}

std::string describe_greedy(const CaseReport& report, size_t num_greedy) {
  if (report.mismatch) return "differs at token " + std::to_string(*report.mismatch);
  if (report.tie) return "tie at token " + std::to_string(*report.tie);
  return std::to_string(report.num_greedy_equal) + " of " + std::to_string(num_greedy) + " equal";
}

void print_text(const VerifyOptions& options, const std::vector<GoldenCase>& cases,
                const std::vector<CaseReport>& reports) {
  std::printf("%4s %7s %12s %12s %12s  %-20s %6s\n", "case", "prompt", "last_logits",
              "logits_after", "by_decode", "greedy", "degree");
  for (size_t i = 0; i < reports.size(); ++i) {
    const CaseReport& report = reports[i];
    const std::string decode = report.decode_error ? format_error(*report.decode_error) : "-";
    std::printf("%4zu %7zu %12s %12s %12s  %-20s %6d%s\n", i, cases[i].prompt.size(),
                format_error(report.last_logits_error).c_str(),
                format_error(report.logits_after_error).c_str(), decode.c_str(),
                describe_greedy(report, cases[i].greedy.size()).c_str(), degree(report.placement),
                report.passes(options.tolerance) ? "" : "  FAILED");
  }
  const Totals totals = add_up(reports, options.tolerance);
  std::printf(
      "%s: %zu cases on %d instances, policy %s: largest error %s x max |logit| "
      "(tolerance %s), greedy mismatches %d, ties %d, failed cases %d\n",
      totals.passed() ? "PASSED" : "FAILED", reports.size(), options.engine.num_instances,
      policy_name(options.engine).c_str(), format_error(totals.largest_error).c_str(),
      format_error(options.tolerance).c_str(), totals.num_mismatches, totals.num_ties,
      totals.num_failed);
}

json case_json(size_t index, const GoldenCase& golden, const CaseReport& report, double tolerance) {
  json entry = {{"case", index},
                {"num_prompt_tokens", golden.prompt.size()},
                {"last_logits_error", report.last_logits_error},
                {"logits_after_error", report.logits_after_error},
                {"decode_error", nullptr},
                {"num_greedy", golden.greedy.size()},
                {"num_greedy_equal", report.num_greedy_equal},
                {"tie_at", nullptr},
                {"mismatch_at", nullptr},
                {"passed", report.passes(tolerance)}};
  if (report.decode_error) entry["decode_error"] = *report.decode_error;
  if (report.tie) entry["tie_at"] = *report.tie;
  if (report.mismatch) entry["mismatch_at"] = *report.mismatch;
  entry.update(placement_json(report.placement));
  return entry;
}

void print_json(const VerifyOptions& options, const std::vector<GoldenCase>& cases,
                const std::vector<CaseReport>& reports) {
  json list = json::array();
  for (size_t i = 0; i < reports.size(); ++i) {
    list.push_back(case_json(i, cases[i], reports[i], options.tolerance));
  }
  const Totals totals = add_up(reports, options.tolerance);
  const json document = {{"cases", std::move(list)},
                         {"summary",
                          {{"passed", totals.passed()},
                           {"num_instances", options.engine.num_instances},
                           {"policy", policy_name(options.engine)},
                           {"tolerance", options.tolerance},
                           {"kv_cache_dtype", tensor::to_string(kv_format(options.engine))},
                           {"largest_error", totals.largest_error},
                           {"num_greedy_mismatches", totals.num_mismatches},
                           {"num_ties", totals.num_ties},
                           {"num_failed", totals.num_failed}}}};
  std::cout << json_text(document);
}

// Both runs of every case.
SessionNeeds needs_of(const std::vector<GoldenCase>& cases) {
  SessionNeeds needs{.request_tokens = {}, .keep_logits = true};
  for (const GoldenCase& golden : cases) {
    needs.request_tokens.insert(needs.request_tokens.end(), 2, Verification::num_tokens(golden));
  }
  return needs;
}

Result<int> verify(const VerifyOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  const auto golden_file = options.golden_file.empty()
                               ? std::filesystem::path(options.engine.model_dir) / "golden.json"
                               : std::filesystem::path(options.golden_file);
  NANOCP_ASSIGN_OR_RETURN(const std::vector<GoldenCase> cases,
                          read_golden(golden_file, spec->vocab_size));
  NANOCP_ASSIGN_OR_RETURN(const std::unique_ptr<EngineSession> session,
                          EngineSession::open(options.engine, spec, needs_of(cases)));
  const InterruptGuard guard;
  Verification verification(session->engine(), cases, options.tolerance);
  NANOCP_ASSIGN_OR_RETURN(const auto reports,
                          verification.run([&] { return guard.interrupted(); }));
  if (!reports) return kInterruptedExitCode;
  if (options.as_json) {
    print_json(options, cases, *reports);
  } else {
    print_text(options, cases, *reports);
  }
  return add_up(*reports, options.tolerance).passed() ? 0 : 1;
}

}  // namespace

void add_verify_command(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("verify", "Compare a model with golden results of another implementation");
  const auto options = std::make_shared<VerifyOptions>();
  CLI::Option* model =
      command->add_option("MODEL_DIR", options->engine.model_dir, "Hugging Face checkpoint");
  const char* group = "Golden results";
  command
      ->add_option("--tokenizer", options->tokenizer_dir,
                   "Instead of a model, check the tokenizer.json and chat template of this folder "
                   "(with --golden FILE.jsonl)")
      ->type_name("DIR")
      ->excludes(model)
      ->group(group);
  command->add_option("--golden", options->golden_file, "Default: MODEL_DIR/golden.json")
      ->type_name("FILE")
      ->group(group);
  command
      ->add_option("--tolerance", options->tolerance,
                   "Largest logit error over the golden's largest |logit|")
      ->check(in_range(0.0, 1e6))
      ->type_name("X")
      ->capture_default_str()
      ->group(group);
  add_engine_options(*command, options->engine);
  command->add_flag("--json", options->as_json, "Print JSON")->group("Output");
  command->callback([options, &exit_code] {
    const bool is_tokenizer = !options->tokenizer_dir.empty();
    if (!is_tokenizer && options->engine.model_dir.empty()) throw CLI::RequiredError("MODEL_DIR");
    if (is_tokenizer && options->golden_file.empty()) throw CLI::RequiredError("--golden");
    const Result<int> result =
        is_tokenizer
            ? verify_tokenizer(options->tokenizer_dir, options->golden_file, options->as_json)
            : verify(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
