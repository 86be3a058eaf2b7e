#include "apps/bench_serve_target.h"

#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "chart/svg.h"
#include "load/probe.h"

namespace nanocp::apps {
namespace {

constexpr load::TokenIdRange kIdsOfLargeVocabularies = {.low = 1000, .high = 30'000};
constexpr load::TokenIdRange kIdsOfAll = {.low = 100, .high = 400};
constexpr std::streamoff kPromptFileBytesMax = std::streamoff{1} << 30;

int64_t to_us(double seconds) {
  return std::llround(seconds * 1e6);
}

Result<http_client::Options> client_options(const BenchServeOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(http_client::Url url, http_client::parse_url(options.base_url));
  if (!url.path.ends_with("/v1")) url.path += "/v1";
  return http_client::Options{.server = std::move(url),
                              .connect_deadline_us = to_us(options.connect_timeout_s),
                              .first_byte_deadline_us = to_us(options.first_byte_timeout_s),
                              .deadline_us = to_us(options.request_timeout_s)};
}

Result<load::Target> make_target(const BenchServeOptions& options, const ServeSubject& subject) {
  return load::Target::make({.api = options.api(),
                             .base_path = subject.client.server.path,
                             .model = subject.model,
                             .api_key = options.api_key,
                             .extra_body = options.extra_body,
                             .ignores_eos = !options.stops_at_eos});
}

Result<std::shared_ptr<const load::PromptSource>> read_prompt_lines(
    const BenchServeOptions& options) {
  const std::string& file = options.prompt_file;
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) return not_found(file + ": cannot be read");
  if (in.tellg() > kPromptFileBytesMax) return invalid_argument(file + ": more than 1 GiB");
  in.seekg(0);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return Error{ErrorCode::kInternal, file + ": cannot be read"};
  NANOCP_ASSIGN_OR_RETURN(std::unique_ptr<load::PromptSource> prompts,
                          load::parse_prompts(text.str(), file, options.api()));
  return std::shared_ptr<const load::PromptSource>(std::move(prompts));
}

void use_ids(load::TokenIdRange range, ServeSubject& subject) {
  subject.prompts = [range](uint64_t seed) { return load::random_ids(range, seed); };
  subject.prompts_text =
      "random token ids " + std::to_string(range.low) + ":" + std::to_string(range.high);
}

// True: ids of a range are taken, and set. False: none of them.
Result<bool> use_ids_if_taken(const BenchServeOptions& options, ServeSubject& subject) {
  std::vector<load::TokenIdRange> ranges = {kIdsOfLargeVocabularies, kIdsOfAll};
  if (!options.token_ids.empty()) {
    NANOCP_ASSIGN_OR_RETURN(const load::TokenIdRange range, parse_token_ids(options.token_ids));
    ranges = {range};
  }
  std::string refusal;
  for (const load::TokenIdRange range : ranges) {
    NANOCP_ASSIGN_OR_RETURN(load::IdsAnswer answer,
                            load::try_ids(subject.client, subject.target, range));
    if (answer.are_taken) {
      use_ids(range, subject);
      return true;
    }
    refusal = std::move(answer.refusal);
  }
  if (options.prompts == "auto" && options.token_ids.empty()) return false;
  return invalid_argument("the server does not take these token ids: " + refusal);
}

Status use_text(const BenchServeOptions& options, ServeSubject& subject) {
  const load::Api api = options.api();
  NANOCP_ASSIGN_OR_RETURN(const std::optional<load::TextShape> measured,
                          load::measure_text(subject.client, subject.target, api));
  const load::TextShape shape = measured.value_or(load::TextShape());
  subject.prompts = [api, shape](uint64_t seed) { return load::random_text(api, shape, seed); };
  chart::append(subject.prompts_text, "random words, %.2f tokens each", shape.tokens_per_word);
  if (!measured) subject.prompts_text += " (a guess: the server reports no usage)";
  return ok_status();
}

Status choose_prompts(const BenchServeOptions& options, ServeSubject& subject) {
  if (!options.prompt_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(auto prompts, read_prompt_lines(options));
    subject.prompts = [lines = std::move(prompts)](uint64_t /*seed*/) { return lines; };
    subject.prompts_text = options.prompt_file;
    return ok_status();
  }
  if (options.api() == load::Api::kCompletions && options.prompts != "text") {
    NANOCP_ASSIGN_OR_RETURN(const bool is_done, use_ids_if_taken(options, subject));
    if (is_done) return ok_status();
  }
  return use_text(options, subject);
}

}  // namespace

Result<ServeSubject> find_subject(const BenchServeOptions& options) {
  ServeSubject subject;
  NANOCP_ASSIGN_OR_RETURN(subject.client, client_options(options));
  subject.model = options.model;
  NANOCP_ASSIGN_OR_RETURN(subject.target, make_target(options, subject));
  if (subject.model.empty()) {
    NANOCP_ASSIGN_OR_RETURN(subject.model, load::first_model(subject.client, subject.target));
    NANOCP_ASSIGN_OR_RETURN(subject.target, make_target(options, subject));
  }
  NANOCP_RETURN_IF_ERROR(choose_prompts(options, subject));
  return subject;
}

}  // namespace nanocp::apps
