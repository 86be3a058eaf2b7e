#include "apps/generate_command.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "apps/bundled_model.h"
#include "apps/chat_prompt.h"
#include "apps/command_error.h"
#include "apps/engine_session.h"
#include "apps/generation.h"
#include "apps/generation_report.h"
#include "apps/interrupt.h"
#include "apps/json_output.h"
#include "apps/prompt_file.h"
#include "grammar/structured_output.h"
#include "model/config_parser.h"
#include "text/text_file.h"

namespace nanocp::apps {
namespace {

struct GenerateOptions {
  EngineOptions engine;
  GenerationParams params;
  std::vector<std::string> prompts;
  std::string prompt_file;
  std::vector<std::string> chats;
  std::string messages_file;
  std::string schema_file;
  bool keep_special_tokens = false;
  bool as_json = false;
};

// Conversations, in the words of the model's chat template.
Status add_chats(const GenerateOptions& options, std::vector<Prompt>& prompts) {
  if (options.chats.empty() && options.messages_file.empty()) return ok_status();
  if (options.engine.model_dir.empty()) {
    return invalid_argument("a chat needs a MODEL_DIR with a chat template");
  }
  NANOCP_ASSIGN_OR_RETURN(const auto chat_template,
                          text::ChatTemplate::load(options.engine.model_dir));
  for (const std::string& message : options.chats) {
    NANOCP_ASSIGN_OR_RETURN(Prompt prompt, chat_prompt(chat_template, message, options.params));
    prompts.push_back(std::move(prompt));
  }
  if (options.messages_file.empty()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(Prompt prompt,
                          read_messages_file(chat_template, options.messages_file, options.params));
  prompts.push_back(std::move(prompt));
  return ok_status();
}

Result<std::vector<Prompt>> collect_prompts(const GenerateOptions& options) {
  std::vector<Prompt> prompts;
  for (const std::string& text : options.prompts) {
    prompts.push_back(
        {.source = "--prompt", .text = text, .token_ids = {}, .params = options.params});
  }
  if (!options.prompt_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(const std::vector<Prompt> more,
                            read_prompt_file(options.prompt_file, options.params));
    prompts.insert(prompts.end(), more.begin(), more.end());
  }
  NANOCP_RETURN_IF_ERROR(add_chats(options, prompts));
  if (prompts.empty()) {
    return invalid_argument("give --prompt TEXT, --prompts FILE, --chat TEXT or --messages FILE");
  }
  return prompts;
}

// Token ids need no tokenizer, so that a config alone can be tried out.
Result<std::optional<text::Tokenizer>> load_tokenizer(const std::string& model_dir,
                                                      const std::vector<Prompt>& prompts) {
  const bool needed = std::any_of(prompts.begin(), prompts.end(), [](const Prompt& prompt) {
    return prompt.token_ids.empty() || !prompt.params.stop.empty();
  });
  if (model_dir.empty()) {
    if (!needed) return std::optional<text::Tokenizer>();
    return invalid_argument(
        "text needs a MODEL_DIR with a tokenizer.json; without one, give token "
        "ids in --prompts FILE and no stop strings");
  }
  const std::filesystem::path file = std::filesystem::path(model_dir) / "tokenizer.json";
  std::error_code error;
  if (!needed && !std::filesystem::exists(file, error)) return std::optional<text::Tokenizer>();
  NANOCP_ASSIGN_OR_RETURN(text::Tokenizer tokenizer, text::Tokenizer::from_file(file));
  return std::optional<text::Tokenizer>(std::move(tokenizer));
}

// Null without a schema.
Result<std::shared_ptr<const request::TokenConstraint>> read_constraint(
    const GenerateOptions& options, const model::ModelSpec& spec,
    const text::Tokenizer* tokenizer) {
  using Constraint = std::shared_ptr<const request::TokenConstraint>;
  if (options.schema_file.empty()) return Constraint();
  if (tokenizer == nullptr) {
    return invalid_argument("--json-schema needs a MODEL_DIR with a tokenizer.json");
  }
  NANOCP_ASSIGN_OR_RETURN(std::string schema,
                          text::read_text_file(options.schema_file, int64_t{1} << 20));
  NANOCP_ASSIGN_OR_RETURN(std::vector<TokenId> end_tokens,
                          model::read_eos_token_ids(options.engine.model_dir, spec));
  grammar::Compiler compiler(grammar::Vocabulary::create(*tokenizer, std::move(end_tokens)));
  auto constraint = compiler.compile(
      {.kind = grammar::ResponseFormat::Kind::kJsonSchema, .text = std::move(schema)});
  if (constraint.ok()) return constraint;
  return Error{constraint.error().code, options.schema_file + ": " + constraint.error().message};
}

// The answer is cut to what the model has positions for, as servers do.
GenerationTask make_task(const Prompt& prompt, const text::Tokenizer* tokenizer,
                         int64_t model_len) {
  GenerationTask task{.source = prompt.source, .prompt = prompt.token_ids, .params = prompt.params};
  if (task.prompt.empty()) task.prompt = tokenizer->encode(prompt.text, true);
  const int64_t room = model_len - static_cast<int64_t>(task.prompt.size());
  if (room >= 1 && room < task.params.max_tokens) {
    task.params.max_tokens = static_cast<int32_t>(room);
    task.params.min_tokens = std::min(task.params.min_tokens, task.params.max_tokens);
  }
  return task;
}

SessionNeeds needs_of(const std::vector<GenerationTask>& tasks) {
  SessionNeeds needs;
  for (const GenerationTask& task : tasks) {
    needs.request_tokens.push_back(static_cast<int64_t>(task.prompt.size()) +
                                   task.params.max_tokens);
  }
  return needs;
}

std::string shown(const std::string& text) {
  static const bool kIsTerminal = isatty(STDOUT_FILENO) == 1;
  return kIsTerminal ? terminal_safe(text) : text;
}

void write_out(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string answer_text(const Answer& answer, bool has_text) {
  if (has_text) return shown(answer.text);
  std::string ids;
  for (const TokenId token : answer.token_ids)
    ids += (ids.empty() ? "" : " ") + std::to_string(token);
  return ids;
}

void print_report(const std::vector<GenerationTask>& tasks, const std::vector<Answer>& answers,
                  const GenerationSummary& summary, bool streamed, bool has_text) {
  std::string out;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string name = "request " + std::to_string(i);
    if (!streamed) {
      out += "--- " + name + " (" + tasks[i].source + ")\n" + answer_text(answers[i], has_text);
    }
    out += "\n[" + name + ": " + describe_answer(tasks[i], answers[i]) + "]\n";
  }
  write_out(out + "[" + describe_summary(summary, answers.size()) + "]\n");
}

GenerationSummary summarize(const std::vector<GenerationTask>& tasks,
                            const std::vector<Answer>& answers, const GenerateOptions& options) {
  GenerationSummary summary;
  for (const GenerationTask& task : tasks) {
    summary.num_prompt_tokens += static_cast<int64_t>(task.prompt.size());
  }
  for (const Answer& answer : answers) {
    summary.num_output_tokens += static_cast<int64_t>(answer.token_ids.size());
  }
  summary.num_instances = options.engine.num_instances;
  summary.policy = policy_name(options.engine);
  return summary;
}

Result<int> run_tasks(const GenerateOptions& options, const std::vector<GenerationTask>& tasks,
                      const text::Tokenizer* tokenizer, EngineSession& session) {
  Generation generation(session.engine(), tokenizer, options.keep_special_tokens);
  for (const GenerationTask& task : tasks) NANOCP_RETURN_IF_ERROR(generation.add(task));
  const bool streams = tasks.size() == 1 && !options.as_json && tokenizer != nullptr;
  const InterruptGuard guard;
  const auto start = std::chrono::steady_clock::now();
  NANOCP_RETURN_IF_ERROR(generation.run(
      [&](size_t, const std::string& text) {
        if (streams) write_out(shown(text));
      },
      [&] { return guard.interrupted(); }));
  GenerationSummary summary = summarize(tasks, generation.answers(), options);
  summary.num_steps = session.engine().num_steps();
  summary.duration_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.as_json) {
    write_out(json_text(report_json(tasks, generation.answers(), summary)));
  } else {
    print_report(tasks, generation.answers(), summary, streams, tokenizer != nullptr);
  }
  return guard.interrupted() ? kInterruptedExitCode : 0;
}

Result<int> generate(GenerateOptions options) {
  const bool has_model = !options.engine.model_dir.empty() || !options.engine.config_file.empty();
  if (!has_model) {
    NANOCP_ASSIGN_OR_RETURN(options.engine.model_dir, find_bundled_model());
  }
  NANOCP_ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, collect_prompts(options));
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  NANOCP_ASSIGN_OR_RETURN(const int64_t model_len, max_model_len(options.engine, *spec));
  NANOCP_ASSIGN_OR_RETURN(const std::optional<text::Tokenizer> tokenizer,
                          load_tokenizer(options.engine.model_dir, prompts));
  const text::Tokenizer* tokenizer_or_null = tokenizer ? &*tokenizer : nullptr;
  NANOCP_ASSIGN_OR_RETURN(const auto constraint,
                          read_constraint(options, *spec, tokenizer_or_null));
  std::vector<GenerationTask> tasks;
  for (const Prompt& prompt : prompts) {
    tasks.push_back(make_task(prompt, tokenizer_or_null, model_len));
    tasks.back().params.constraint = constraint;
    // Before the weights are read, which may take minutes.
    NANOCP_RETURN_IF_ERROR(
        check_task(tasks.back(), {.max_model_len = model_len, .vocab_size = spec->vocab_size}));
  }
  NANOCP_ASSIGN_OR_RETURN(const std::unique_ptr<EngineSession> session,
                          EngineSession::open(options.engine, spec, needs_of(tasks)));
  return run_tasks(options, tasks, tokenizer_or_null, *session);
}

}  // namespace

void add_generate_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("generate", "Answer prompts");
  const auto options = std::make_shared<GenerateOptions>();
  command->add_option("MODEL_DIR", options->engine.model_dir,
                      "Hugging Face checkpoint (default: the bundled small model)");
  const char* group = "Prompts";
  command->add_option("--prompt", options->prompts, "Text to continue; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command
      ->add_option("--prompts", options->prompt_file,
                   "JSON lines {\"prompt\": \"...\", \"max_tokens\": 32, ...}")
      ->type_name("FILE")
      ->group(group);
  command
      ->add_option("--chat", options->chats,
                   "A message to answer, in the form of the model's chat template; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command
      ->add_option("--messages", options->messages_file,
                   "JSON list of messages, or {\"messages\": [...], \"tools\": [...], "
                   "\"chat_template_kwargs\": {...}}")
      ->type_name("FILE")
      ->group(group);
  add_generation_options(*command, options->params);
  command
      ->add_option("--json-schema", options->schema_file,
                   "JSON schema that every answer must follow")
      ->type_name("FILE")
      ->group("Sampling (defaults of every prompt)");
  add_engine_options(*command, options->engine);
  command
      ->add_flag("--keep-special-tokens", options->keep_special_tokens,
                 "Show special tokens in the answer")
      ->group("Output");
  command->add_flag("--json", options->as_json, "Print one JSON document at the end")
      ->group("Output");
  command->callback([options, &exit_code] {
    const Result<int> result = generate(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
