// The program `nanocp`: one subcommand per task.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "apps/bench_command.h"
#include "apps/calibrate_command.h"
#include "apps/devices_command.h"
#include "apps/generate_command.h"
#include "apps/inspect_command.h"
#include "apps/serve_command.h"
#include "apps/simulate_command.h"
#include "apps/verify_command.h"

namespace {

std::string command_names(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  return names;
}

// Usage errors as every other error: one line, exit code 1.
int report_usage(const CLI::App& app, const CLI::ParseError& error, const std::string& first) {
  if (error.get_exit_code() == 0) return app.exit(error);
  std::string message = error.what();
  if (app.get_subcommands().empty()) {
    message = (first.empty() ? "no command" : "unknown command '" + first + "'") + ": use one of " +
              command_names(app);
  }
  for (char& c : message) {
    if (c == '\n') c = ' ';
  }
  std::fprintf(stderr, "error: %s (see --help)\n", message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"NanoCP: serves mixture-of-experts models with long contexts"};
  app.set_version_flag("--version", "nanocp " NANOCP_VERSION);
  app.require_subcommand(1);
  int exit_code = 0;
  nanocp::apps::add_generate_command(app, exit_code);
  nanocp::apps::add_serve_command(app, exit_code);
  nanocp::apps::add_verify_command(app, exit_code);
  nanocp::apps::add_inspect_command(app, exit_code);
  nanocp::apps::add_bench_command(app, exit_code);
  nanocp::apps::add_calibrate_command(app, exit_code);
  nanocp::apps::add_simulate_command(app, exit_code);
  nanocp::apps::add_devices_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error, argc > 1 ? argv[1] : "");
  }
  return exit_code;
}
