#include "apps/inspect_command.h"

#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <string>

#include "apps/command_error.h"
#include "apps/inspection.h"
#include "apps/json_output.h"
#include "apps/model_lookup.h"
#include "model/config_parser.h"
#include "model/mapped_file.h"

namespace nanocp::apps {
namespace {

constexpr int32_t kInstancesMax = 65536;

struct InspectOptions {
  std::string model;
  int32_t num_instances = 1;
  uint64_t memory_bytes = 0;
  double usable_fraction = 0.9;
  std::string kv_cache_dtype = "bf16";
  bool as_json = false;
};

Result<Inspection> inspect(const InspectOptions& options) {
  if (options.memory_bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return invalid_argument("--memory " + std::to_string(options.memory_bytes) + " is too large");
  }
  NANOCP_ASSIGN_OR_RETURN(const auto path, find_model_config(options.model));
  NANOCP_ASSIGN_OR_RETURN(const model::ModelSpec spec, model::read_config(path));
  return inspect_model(
      spec, {.config_file = model::display_name(path),
             .num_instances = options.num_instances,
             .memory = {.size_bytes = static_cast<int64_t>(options.memory_bytes),
                        .usable_fraction = options.usable_fraction,
                        .kv_format = options.kv_cache_dtype == "fp8" ? tensor::KvFormat::kFp8
                                                                     : tensor::KvFormat::kBf16}});
}

int run_inspect(const InspectOptions& options) {
  const auto inspection = inspect(options);
  if (!inspection.ok()) return report_error(inspection.error());
  std::cout << (options.as_json ? json_text(inspection_json(*inspection))
                                : inspection_text(*inspection));
  return 0;
}

}  // namespace

void add_inspect_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Show a model's spec, parameters and memory needs, from its config alone");
  const auto options = std::make_shared<InspectOptions>();
  command
      ->add_option("MODEL", options->model,
                   "A model directory, a config.json, or a bundled config such as qwen3-30b-a3b")
      ->required();
  command->add_option("--instances", options->num_instances, "Instances that share the experts")
      ->check(CLI::Range(1, kInstancesMax))
      ->capture_default_str();
  command
      ->add_option("--memory", options->memory_bytes,
                   "Memory of an instance, such as 80GB or 80GiB: also shows the longest request")
      ->transform(CLI::AsSizeValue(true));
  command
      ->add_option("--usable-memory", options->usable_fraction,
                   "Share of --memory for weights and KV cache; the rest is for activations")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  command->add_option("--kv-cache-dtype", options->kv_cache_dtype, "Of the KV cache: bf16 or fp8")
      ->check(CLI::IsMember({"bf16", "fp8"}).description(""))
      ->capture_default_str();
  command->add_flag("--json", options->as_json, "Print JSON");
  command->callback([options, &exit_code] { exit_code = run_inspect(*options); });
}

}  // namespace nanocp::apps
