#include "apps/serve_command.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "apps/bundled_model.h"
#include "apps/command_error.h"
#include "apps/engine_session.h"
#include "apps/flag_file.h"
#include "apps/interrupt.h"
#include "apps/json_output.h"
#include "apps/serve_options.h"
#include "apps/serve_summary.h"
#include "grammar/structured_output.h"
#include "http/server.h"
#include "model/config_parser.h"
#include "server/app.h"
#include "server/observability_routes.h"
#include "server/reply.h"

namespace nanocp::apps {
namespace {

namespace fs = std::filesystem;

// For answers that are complete to get out.
constexpr double kFlushSeconds = 5.0;
// How often a server that waits for its end looks whether that has come.
constexpr double kPollSeconds = 0.2;
// For whoever asks to read that the engine has failed, before the process ends.
constexpr double kFailedSeconds = 2.0;

// What requests are read against, with what it points to.
struct ServedTexts {
  std::optional<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
  std::unique_ptr<grammar::Compiler> compiler;  // of structured output
  api::ModelContext context;
};

// A checkpoint may have none: chats are refused then, completions are not.
Status load_chat_template(const ServeOptions& options, ServedTexts& texts) {
  auto loaded = text::ChatTemplate::load(options.engine.model_dir, options.chat_template);
  if (loaded.ok()) {
    texts.chat_template = std::move(*loaded);
    return ok_status();
  }
  const bool is_needed = !options.chat_template.empty();
  return is_needed || loaded.error().code != ErrorCode::kNotFound ? Status(loaded.error())
                                                                  : ok_status();
}

std::vector<std::string> served_names(const ServeOptions& options) {
  if (!options.served_names.empty()) return options.served_names;
  const fs::path folder = fs::path(options.engine.model_dir).lexically_normal();
  const std::string name =
      folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
  // Where the bundled model lies is nothing that clients say.
  if (options.is_bundled && !name.empty()) return {name};
  if (name.empty() || name == options.engine.model_dir) return {options.engine.model_dir};
  return {name, options.engine.model_dir};
}

Result<std::shared_ptr<ServedTexts>> load_texts(const ServeOptions& options,
                                                const model::ModelSpec& spec) {
  const fs::path folder = options.engine.model_dir;
  if (folder.empty()) {
    return invalid_argument("a server needs a MODEL_DIR with a tokenizer.json");
  }
  auto texts = std::make_shared<ServedTexts>();
  NANOCP_ASSIGN_OR_RETURN(texts->tokenizer, text::Tokenizer::from_file(folder / "tokenizer.json"));
  NANOCP_RETURN_IF_ERROR(load_chat_template(options, *texts));
  api::ModelContext& context = texts->context;
  context.served_names = served_names(options);
  context.tokenizer = &*texts->tokenizer;
  context.chat_template = texts->chat_template ? &*texts->chat_template : nullptr;
  context.vocab_size = spec.vocab_size;
  NANOCP_ASSIGN_OR_RETURN(context.max_model_len, max_model_len(options.engine, spec));
  NANOCP_ASSIGN_OR_RETURN(context.eos_token_ids, model::read_eos_token_ids(folder, spec));
  texts->compiler = std::make_unique<grammar::Compiler>(
      grammar::Vocabulary::create(*texts->tokenizer, context.eos_token_ids));
  context.compile_format = [compiler =
                                texts->compiler.get()](const grammar::ResponseFormat& format) {
    return compiler->compile(format);
  };
  if (options.generation_config == "auto") {
    NANOCP_ASSIGN_OR_RETURN(context.defaults, api::load_sampling_defaults(folder));
  }
  NANOCP_ASSIGN_OR_RETURN(
      context.output_format,
      api::choose_output_format(options.tool_call_parser, options.reasoning_parser,
                                context.chat_template, *context.tokenizer));
  context.created_s = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  return texts;
}

http::Options http_options(const ServeOptions& options, const server::App& app,
                           server::Observability& observability) {
  http::Options result;
  result.host = options.host;
  result.port = options.port;
  result.num_io_threads = options.num_io_threads;
  result.num_handler_threads = options.num_request_threads;
  result.max_connections = options.max_connections;
  result.body_bytes_max = static_cast<int64_t>(options.max_body_bytes);
  result.idle_timeout_s = options.idle_timeout_s;
  result.error_body = server::http_error_body;
  result.error_content_type = "application/json";
  result.on_exchange = [&app, &observability](const http::Exchange& exchange) {
    observability.on_exchange(exchange, app.router().route_path(exchange.path));
  };
  return result;
}

// As many blocks as the default share of memory holds, unless all running requests need fewer.
SessionNeeds session_needs(const ServeOptions& options, int64_t model_len) {
  SessionNeeds needs;
  const int64_t num_requests =
      static_cast<int64_t>(max_num_seqs(options.engine)) * options.engine.num_instances;
  needs.request_tokens.assign(static_cast<size_t>(num_requests), model_len);
  needs.profile = options.profile_steps || options.engine.device == "cpu";
  return needs;
}

// `clock` outlives it.
Result<std::unique_ptr<server::Observability>> make_observability(const ServeOptions& options,
                                                                  const ServedTexts& texts,
                                                                  const Clock& clock) {
  std::unique_ptr<server::AccessLog> access_log;
  if (!options.access_log.empty()) {
    NANOCP_ASSIGN_OR_RETURN(access_log, server::AccessLog::open(options.access_log));
  }
  server::ClusterInfo info;
  info.model = texts.context.served_names.front();
  info.version = NANOCP_VERSION;
  info.max_model_len = texts.context.max_model_len;
  return std::make_unique<server::Observability>(std::move(info), clock, std::move(access_log));
}

// "4 instances on CPU".
std::string device_text(const ServeOptions& options, const EngineSession& session) {
  const int num_instances = options.engine.num_instances;
  return std::to_string(num_instances) + (num_instances == 1 ? " instance on " : " instances on ") +
         session.device_name();
}

Status write_trace(const ServeOptions& options, const server::Observability& observability) {
  if (options.trace_file.empty()) return ok_status();
  return write_file(options.trace_file, observability.chrome_trace());
}

void drain(const ServeOptions& options, server::App& app, const server::EngineLoop& loop) {
  std::fprintf(stderr, "shutting down: %lld open requests have %.0f s to end; again to end now\n",
               static_cast<long long>(loop.num_open()), options.shutdown_timeout_s);
  app.begin_drain();
  if (!loop.wait_idle(options.shutdown_timeout_s)) {
    std::fprintf(stderr, "warning: %lld requests were cut off\n",
                 static_cast<long long>(loop.num_open()));
  }
}

// Runs until a signal, and lets what is open end, or until the engine fails, which the loop has
// told all clients. Whether it has not.
bool serve_until_end(const ServeOptions& options, server::App& app, server::EngineLoop& loop,
                     http::Server& http_server) {
  const InterruptGuard guard;
  // Whoever reads the output may leave; the server stays.
  std::signal(SIGPIPE, SIG_IGN);
  while (loop.health().is_alive() && !guard.wait(kPollSeconds)) {
  }
  if (loop.health().is_alive()) drain(options, app, loop);
  const bool is_alive = loop.health().is_alive();
  if (is_alive) {
    loop.stop("the server is shutting down");
  } else {
    std::fprintf(stderr, "ending with exit code 1: only a new process helps\n");
    guard.wait(kFailedSeconds);
  }
  http_server.stop(kFlushSeconds);
  return is_alive;
}

Result<int> serve(ServeOptions options) {
  if (options.engine.model_dir.empty() && options.engine.config_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(options.engine.model_dir, find_bundled_model());
    options.is_bundled = true;
  }
  NANOCP_ASSIGN_OR_RETURN(std::vector<std::string> keys, collect_api_keys(options));
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  NANOCP_ASSIGN_OR_RETURN(const std::shared_ptr<ServedTexts> texts, load_texts(options, *spec));

  const bool has_api_keys = !keys.empty();
  const SteadyClock clock;
  NANOCP_ASSIGN_OR_RETURN(const std::unique_ptr<server::Observability> observability,
                          make_observability(options, *texts, clock));
  // Before the weights are read, so that probes can ask and a port in use is told at once.
  server::App app(
      {.router = {.api_keys = std::move(keys), .allowed_origins = options.allowed_origins},
       .version = NANOCP_VERSION});
  server::add_observability_routes(app, *observability);
  NANOCP_ASSIGN_OR_RETURN(
      const std::unique_ptr<http::Server> http_server,
      http::Server::start(http_options(options, app, *observability),
                          [&app](const http::Request& request, const auto& response) {
                            app.handle(request, response);
                          }));
  NANOCP_ASSIGN_OR_RETURN(
      const std::unique_ptr<EngineSession> session,
      EngineSession::open(options.engine, spec,
                          session_needs(options, texts->context.max_model_len)));
  texts->context.max_model_len = session->longest_request_tokens();
  observability->set_loaded(device_text(options, *session), texts->context.max_model_len);
  server::EngineLoop loop({.max_waiting = options.max_waiting,
                           .max_waiting_tokens = options.max_waiting_tokens,
                           .num_delivery_threads = 1,
                           .step_timeout_s = options.step_timeout_s},
                          session->engine(), session->clock(), observability.get());
  app.serve(
      {.context = std::shared_ptr<const api::ModelContext>(texts, &texts->context), .loop = &loop});
  print_summary({.spec = *spec,
                 .session = *session,
                 .context = texts->context,
                 .options = options,
                 .http_server = *http_server,
                 .has_api_keys = has_api_keys});
  const bool has_failed = !serve_until_end(options, app, loop, *http_server);
  const Status written = write_trace(options, *observability);
  if (has_failed) {
    if (!written.ok()) report_error(written.error());
    observability->finish_access_log();
    std::fflush(nullptr);
    // The engine's thread may never come back, nor what the runner waits for.
    std::_Exit(1);
  }
  NANOCP_RETURN_IF_ERROR(written);
  return 0;
}

}  // namespace

void add_serve_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("serve", "Serve OpenAI's API over HTTP");
  const auto options = std::make_shared<ServeOptions>();
  add_serve_options(*command, *options);
  command->callback([command, options, &exit_code] {
    Status status = ok_status();
    if (!options->config_file.empty()) status = apply_flag_file(*command, options->config_file);
    const Result<int> result = status.ok() ? serve(*options) : Result<int>(status.error());
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
