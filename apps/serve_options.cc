#include "apps/serve_options.h"

#include <cstdlib>
#include <sstream>

#include "apps/in_range.h"

namespace nanocp::apps {
namespace {

constexpr const char* kApiKeyVariable = "NANOCP_API_KEY";
constexpr double kSecondsMax = 7 * 86400.0;

void add_names_group(CLI::App& command, ServeOptions& options) {
  const char* group = "Model";
  command
      .add_option("MODEL_DIR,--model", options.engine.model_dir,
                  "Hugging Face checkpoint (default: the bundled small model)")
      ->group(group);
  command
      .add_option("--served-model-name", options.served_names,
                  "Names that requests may use for the model; answers say the first (default: the "
                  "folder's name and MODEL_DIR)")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--chat-template", options.chat_template,
                  "Jinja template for chats (default: the checkpoint's)")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option(
          "--generation-config", options.generation_config,
          "Defaults of sampling: auto: the checkpoint's generation_config.json; none: those "
          "of OpenAI's API")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--tool-call-parser", options.tool_call_parser,
                  "How the model writes tool calls: hermes, qwen3_coder, deepseek_v3, "
                  "deepseek_v31, openai, kimi_k2, glm45, mistral, none, or auto: as its chat "
                  "template does")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--reasoning-parser", options.reasoning_parser,
                  "How it writes thoughts: qwen3, deepseek_r1, deepseek_v3, glm45, kimi_k2, "
                  "openai_gptoss, none or auto")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
}

void add_address_group(CLI::App& command, ServeOptions& options) {
  const char* group = "Server";
  command.add_option("--host", options.host, "Address to listen on; 0.0.0.0: all of this machine")
      ->capture_default_str()
      ->group(group);
  command.add_option("--port", options.port, "Port to listen on; 0: any free one")
      ->type_name("PORT")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--api-key", options.api_keys,
                  "Key that requests must carry, all but GET /health; repeatable. Also from the "
                  "environment: NANOCP_API_KEY, several with commas between")
      ->type_name("KEY")
      ->group(group);
  command
      .add_option("--allowed-origins", options.allowed_origins,
                  "Origins of web pages that may use the API, or '*' (default: none)")
      ->type_name("ORIGIN")
      ->group(group);
  command
      .add_option("--shutdown-timeout", options.shutdown_timeout_s,
                  "Time for open requests to end after SIGTERM or Ctrl-C; a second signal ends at "
                  "once")
      ->check(in_range(0.0, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
}

void add_limit_group(CLI::App& command, ServeOptions& options) {
  const char* group = "Server limits";
  command
      .add_option("--max-waiting", options.max_waiting,
                  "Requests that may wait for the engine; more are answered with 429")
      ->check(in_range<int64_t>(1, int64_t{1} << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--max-waiting-tokens", options.max_waiting_tokens,
          "Tokens of prompts that may wait for the engine; with more, requests are answered "
          "with 429")
      ->check(in_range<int64_t>(1, int64_t{1} << 40))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-connections", options.max_connections,
                  "Open connections, as far as the limit of open files allows; more are answered "
                  "with 503")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command.add_option("--max-body-size", options.max_body_bytes, "Largest request body, e.g. 64MiB")
      ->transform(CLI::AsSizeValue(false).description(""))
      ->type_name("SIZE")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--idle-timeout", options.idle_timeout_s,
                  "Connections without a request are closed after this time")
      ->check(in_range(0.1, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--step-timeout", options.step_timeout_s,
                  "A step that takes longer means that the engine hangs: /health then says 503")
      ->check(in_range(0.1, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
  command.add_option("--io-threads", options.num_io_threads, "Threads that run all connections")
      ->check(in_range(1, 256))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--request-threads", options.num_request_threads,
                  "Threads that read requests: JSON, templates, tokens")
      ->check(in_range(1, 256))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

void add_observability_group(CLI::App& command, ServeOptions& options) {
  const char* group = "Observability";
  command
      .add_option("--access-log", options.access_log,
                  "Adds a line of JSON for each request to this file; -: standard output")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--trace-file", options.trace_file,
                  "When the server ends, writes what GET /debug/trace says: spans of the last "
                  "requests and steps, for Perfetto")
      ->type_name("FILE")
      ->group(group);
  command
      .add_flag(
          "--profile-steps", options.profile_steps,
          "Times the phases of each step, for /metrics and the live page; on CPUs they always "
          "are, on GPUs it slows steps down")
      ->group(group);
}

}  // namespace

void add_serve_options(CLI::App& command, ServeOptions& options) {
  add_names_group(command, options);
  add_address_group(command, options);
  add_limit_group(command, options);
  add_observability_group(command, options);
  add_engine_options(command, options.engine, "--model-config");
  command
      .add_option("--config", options.config_file,
                  "TOML file with flags of this command by their names, without dashes in front; "
                  "flags of the command line go first")
      ->type_name("FILE");
}

Result<std::vector<std::string>> collect_api_keys(const ServeOptions& options) {
  std::vector<std::string> keys = options.api_keys;
  if (const char* variable = std::getenv(kApiKeyVariable)) {
    std::istringstream text(variable);
    for (std::string key; std::getline(text, key, ',');) keys.push_back(key);
  }
  for (const std::string& key : keys) {
    if (key.empty()) {
      return invalid_argument(std::string("an API key is empty: see --api-key and ") +
                              kApiKeyVariable);
    }
  }
  return keys;
}

}  // namespace nanocp::apps
