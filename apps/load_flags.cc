#include "apps/load_flags.h"

#include "apps/in_range.h"

namespace nanocp::apps {

void add_length_flags(CLI::App& command, const char* group, const LengthFlags& flags) {
  command.add_option("--workload", flags.workload, flags.workload_help)
      ->type_name("TEXT")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--trace", flags.trace_file,
                  "Lengths of a trace, arrival_s,input_tokens,output_tokens (CSV, may be .gz)")
      ->type_name("FILE")
      ->group(group);
  command
      .add_flag("--rotate-trace", flags.rotate_trace,
                "Each seed starts at another request of the trace (default: all at the first)")
      ->group(group);
}

void add_arrival_flags(CLI::App& command, const char* group, const ArrivalFlags& flags) {
  command
      .add_option("--arrivals", flags.arrivals,
                  "poisson, gamma, constant, or trace: the trace's own gaps, stretched to the rate "
                  "if there is one")
      ->check(CLI::IsMember({"poisson", "gamma", "constant", "trace"}).description(""))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--arrivals-cv", flags.arrivals_cv,
                  "Coefficient of variation of gaps (gamma); a burstiness of b is 1/sqrt(b)")
      ->check(in_range(0.05, 100.0))
      ->type_name("CV")
      ->capture_default_str()
      ->group(group);
}

void add_run_flags(CLI::App& command, const char* group, const RunFlags& flags) {
  constexpr double kSecondsMax = 1e8;
  command.add_option("--warmup", flags.warmup_s, "Requests before that time are not measured")
      ->check(in_range(0.0, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
  command.add_option("--seeds", flags.seeds, "Seeds of the load, a run for each")
      ->delimiter(',')
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
}

}  // namespace nanocp::apps
