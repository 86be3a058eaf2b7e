#include "apps/calibrate_command.h"

#include <sys/utsname.h>

#include <cctype>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "apps/calibrate_points.h"
#include "apps/command_error.h"
#include "apps/engine_session.h"
#include "apps/in_range.h"
#include "apps/json_output.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

struct CalibrateOptions {
  EngineOptions engine;
  CalibrationGrid grid = {.rows = {1, 2, 4, 8, 16, 32, 64, 128},
                          .tokens = {256, 1024, 4096, 16384, 65536},
                          .kv_tokens_max = 262144};
  std::string output_file;  // empty: profiles/<device>-<model>.json
};

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// As the program was started; empty where the system does not tell.
std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  while (!text.empty() && text.back() == '\0') text.pop_back();
  for (char& c : text) {
    if (c == '\0') c = ' ';
  }
  return text;
}

json machine() {
  json result = {{"num_cores", std::thread::hardware_concurrency()}};
  utsname name = {};
  if (uname(&name) == 0) {
    result["system"] = std::string(name.sysname) + " " + name.release + " " + name.machine;
  }
  return result;
}

std::string model_name(const EngineOptions& options) {
  namespace fs = std::filesystem;
  const bool has_dir = !options.model_dir.empty();
  const fs::path path = fs::path(has_dir ? options.model_dir : options.config_file);
  if (has_dir) return (path / "").parent_path().filename().string();
  // A config.json is called after its folder.
  if (path.stem() == "config" && path.has_parent_path()) {
    return path.parent_path().filename().string();
  }
  return path.stem().string();
}

// Lower case, with a dash for all that is not a letter, a digit, a dot or a line.
std::string file_name_part(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '.' || c == '_') {
      result += static_cast<char>(std::tolower(byte));
    } else if (!result.empty() && result.back() != '-') {
      result += '-';
    }
  }
  return result;
}

json constants_json(const std::vector<FittedConstant>& constants) {
  json result = json::object();
  for (const FittedConstant& constant : constants) {
    result[constant.name] = {{"value", constant.value},
                             {"unit", constant.unit},
                             {"source", "measured"},
                             {"num_points", constant.num_points},
                             {"relative_error", constant.relative_error},
                             {"is_determined", constant.is_determined}};
  }
  return result;
}

json points_json(const std::vector<CalibrationPoint>& points) {
  json result = json::array();
  for (const CalibrationPoint& point : points) {
    json entry = {{"is_split", point.is_split},
                  {"run", point.run},
                  {"instance", point.instance},
                  {"num_rows", point.num_rows},
                  {"num_kv_tokens", point.num_kv_tokens},
                  {"route_bytes", point.route_bytes},
                  {"step_us", point.step_us},
                  {"plain_step_us", point.plain_step_us}};
    for (int p = 0; p < engine::kNumPhases; ++p) {
      entry["phase_us"][to_string(static_cast<engine::Phase>(p))] =
          point.phase_us[static_cast<size_t>(p)];
    }
    result.push_back(std::move(entry));
  }
  return result;
}

Status write_profile(const std::string& file, const json& profile) {
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  return write_file(file, json_text(profile));
}

void print_constants(const std::vector<FittedConstant>& constants) {
  for (const FittedConstant& constant : constants) {
    std::printf("%-26s %12.6g  %-26s error %5.1f %%%s\n", constant.name, constant.value,
                constant.unit, 100.0 * constant.relative_error,
                constant.is_determined ? "" : "  (the points do not determine it)");
  }
}

Result<int> calibrate(const CalibrateOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  SessionNeeds needs = calibration_needs(options.engine, options.grid);
  NANOCP_ASSIGN_OR_RETURN(std::unique_ptr<EngineSession> session,
                          EngineSession::open(options.engine, spec, needs));
  NANOCP_ASSIGN_OR_RETURN(std::vector<CalibrationPoint> points,
                          measure_points(*session, options.engine, *spec, options.grid));
  // Timing phases costs time itself, about 2 us each on a GPU: the same steps without it.
  session.reset();
  needs.profile = false;
  NANOCP_ASSIGN_OR_RETURN(session, EngineSession::open(options.engine, spec, needs));
  NANOCP_RETURN_IF_ERROR(
      measure_plain_steps(*session, options.engine, *spec, options.grid, points));
  const std::vector<FittedConstant> constants = fit_constants(points, *spec);
  const std::string model = model_name(options.engine);
  const json profile = {
      {"device", session->device_name()},
      {"model", model},
      {"num_instances", options.engine.num_instances},
      {"num_layers", spec->num_layers},
      {"block_size", block_size(options.engine)},
      {"kv_cache_dtype", tensor::to_string(kv_format(options.engine))},
      {"graphs", options.engine.device == "cuda" && !options.engine.enforce_eager},
      {"num_steps", options.grid.num_steps},
      {"timing_us_per_phase", timing_us_per_phase(points, *spec)},
      {"date", utc_now()},
      {"command", command_line()},
      {"machine", machine()},
      {"constants", constants_json(constants)},
      {"points", points_json(points)}};
  const std::string file = options.output_file.empty()
                               ? "profiles/" + file_name_part(session->device_name()) + "-" +
                                     file_name_part(model) + ".json"
                               : options.output_file;
  NANOCP_RETURN_IF_ERROR(write_profile(file, profile));
  print_constants(constants);
  std::printf("timing a phase of a layer adds %.2f us, which is taken off\n",
              timing_us_per_phase(points, *spec));
  std::printf("%zu points; written to %s\n", points.size(), file.c_str());
  return 0;
}

void add_grid_options(CLI::App& command, CalibrateOptions& options) {
  const char* group = "Calibration";
  constexpr int64_t kMost = int64_t{1} << 31;
  command.add_option("--rows", options.grid.rows, "Requests of one instance, one run for each")
      ->delimiter(',')
      ->check(in_range<int64_t>(1, 1 << 16))
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  command.add_option("--tokens", options.grid.tokens, "Context of each request")
      ->delimiter(',')
      ->check(in_range<int64_t>(1, kMost))
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-kv-tokens", options.grid.kv_tokens_max,
                  "Leave out runs with more of them on one instance")
      ->check(in_range<int64_t>(1, kMost))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(group);
  command.add_option("--num-steps", options.grid.num_steps, "Measured steps of a run")
      ->check(in_range(1, 1'000'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--warmup", options.grid.num_warmup_steps, "Steps before them")
      ->check(in_range(0, 1'000'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--output", options.output_file,
                  "Where the profile goes (default: profiles/<device>-<model>.json)")
      ->type_name("FILE")
      ->group("Output");
}

}  // namespace

void add_calibrate_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "calibrate", "Measure the constants of the scheduler's cost model on this machine");
  const auto options = std::make_shared<CalibrateOptions>();
  command->add_option("MODEL_DIR", options->engine.model_dir, "Hugging Face checkpoint");
  add_grid_options(*command, *options);
  add_engine_options(*command, options->engine);
  command->callback([options, &exit_code] {
    const Result<int> result = calibrate(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
