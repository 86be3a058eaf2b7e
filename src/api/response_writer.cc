#include "api/response_writer.h"

#include <algorithm>
#include <utility>

#include "api/answer_json.h"
#include "api/choice.h"
#include "api/json_text.h"
#include "base/check.h"

namespace nanocp::api {

using request::FinishReason;

namespace {

constexpr std::string_view kDone = "data: [DONE]\n\n";

}  // namespace

ResponseWriter::ResponseWriter(OutputOptions output, const ModelContext& context,
                               const ResponseIdentity& identity)
    : output_(std::move(output)), context_(&context), num_open_(output_.num_choices()) {
  choices_.reserve(num_open_);
  for (size_t i = 0; i < num_open_; ++i) {
    choices_.push_back(std::make_unique<Choice>(output_, context));
    if (!output_.parsers.empty()) choices_.back()->parser = std::move(output_.parsers[i]);
  }
  const char* chat_object = streams() ? "chat.completion.chunk" : "chat.completion";
  head_ += "{\"id\":";
  append_string(identity.id, head_);
  head_ += ",\"object\":";
  append_string(is_chat() ? chat_object : "text_completion", head_);
  head_ += ",\"created\":";
  append_number(identity.created_s, head_);
  head_ += ",\"model\":";
  append_string(context.served_names.front(), head_);
  head_ += ",\"choices\":[";
}

// A chat opens with the role of each message.
void ResponseWriter::begin(std::string& out) {
  if (!streams() || !is_chat()) return;
  for (size_t i = 0; i < choices_.size(); ++i) {
    out += "data: ";
    out += head_;
    out += "{\"index\":";
    append_number(i, out);
    out +=
        ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
        "\"finish_reason\":null}]";
    append_chunk_usage(i, out);
    if (output_.return_token_ids) {
      out += ",\"prompt_token_ids\":";
      append_ids(prompt_of(i).token_ids, out);
    }
    out += "}\n\n";
  }
}

Progress ResponseWriter::push(size_t index, engine::TokenEvent& event, std::string& out) {
  NANOCP_CHECK(index < choices_.size());
  Choice& choice = *choices_[index];
  if (choice.finish_reason != FinishReason::kNone) return {.finished = true};
  std::string text = take_token(choice, prompt_of(index), event);
  const bool was_last = event.finish_reason != FinishReason::kNone;
  if (was_last && !output_.prompt_only) text += choice.text.flush();
  if (was_last || choice.text.stopped()) end(choice, event);
  const bool finished = choice.finish_reason != FinishReason::kNone;
  OutputDelta delta;
  OutputDelta rest;
  if (choice.parser == nullptr) {
    delta.content = std::move(text);
  } else {
    delta = choice.parser->push(text);
    if (finished) rest = choice.parser->flush();
  }
  emit(index, delta, finished && rest.empty(), out);
  if (!rest.empty()) emit(index, rest, true, out);
  return {.finished = finished, .cancel = finished && !was_last};
}

// The text that the token settles; what else is shown of it is kept with the choice.
std::string ResponseWriter::take_token(Choice& choice, const PromptInfo& prompt,
                                       engine::TokenEvent& event) const {
  engine::TokenDetails details = event.details.take();
  std::string text;
  if (output_.echo && choice.num_tokens == 0) {
    add_echo(choice, prompt, details);
    text = prompt.text;
  }
  ++choice.num_tokens;
  if (output_.prompt_only) return text;
  if (output_.num_logprobs >= 0) {
    choice.logprobs.add(event.token, event.logprob, details.top_logprobs);
  }
  if (output_.return_token_ids) choice.token_ids.push_back(event.token);
  return text + choice.text.push(event.token, event.is_text || output_.include_stop);
}

void ResponseWriter::add_echo(Choice& choice, const PromptInfo& prompt,
                              const engine::TokenDetails& details) const {
  if (output_.num_logprobs < 0) return;
  const std::vector<TokenId>& tokens = prompt.token_ids;
  NANOCP_CHECK_EQ(details.prompt_scores.size() + 1, tokens.size());
  choice.logprobs.add_first(tokens.front());
  for (size_t i = 1; i < tokens.size(); ++i) {
    const TokenScore& score = details.prompt_scores[i - 1];
    choice.logprobs.add(tokens[i], score.logprob, score.top_logprobs);
  }
}

void ResponseWriter::end(Choice& choice, const engine::TokenEvent& event) {
  choice.finish_reason = choice.text.stopped() ? FinishReason::kStop : event.finish_reason;
  if (output_.prompt_only) choice.finish_reason = FinishReason::kLength;
  const auto& own = context_->eos_token_ids;
  const bool is_stop_token = event.finish_reason == FinishReason::kStop && !choice.text.stopped();
  if (is_stop_token && std::find(own.begin(), own.end(), event.token) == own.end()) {
    choice.stop_token = event.token;
  }
  --num_open_;
}

void ResponseWriter::emit(size_t index, const OutputDelta& delta, bool is_last, std::string& out) {
  Choice& choice = *choices_[index];
  if (!streams()) return choice.add(delta);
  const bool has_details =
      output_.num_logprobs >= 0 || !choice.token_ids.empty() || output_.continuous_usage;
  if (delta.empty() && !is_last && !has_details) return;
  append_chunk(index, delta, is_last, out);
}

void ResponseWriter::append_chunk(size_t index, const OutputDelta& delta, bool is_last,
                                  std::string& out) {
  Choice& choice = *choices_[index];
  out += "data: ";
  out += head_;
  out += "{\"index\":";
  append_number(index, out);
  if (is_chat()) {
    out += ",\"delta\":";
    append_delta(delta, out);
  } else {
    out += ",\"text\":";
    append_string(delta.content, out);
  }
  append_logprobs(choice, out);
  if (is_last) {
    append_end(choice, out);
  } else {
    out += ",\"finish_reason\":null";
  }
  if (output_.return_token_ids) {
    out += ",\"token_ids\":";
    append_ids(choice.token_ids, out);
    choice.token_ids.clear();
  }
  out += "}]";
  append_chunk_usage(index, out);
  out += "}\n\n";
}

void ResponseWriter::append_logprobs(Choice& choice, std::string& out) const {
  out += ",\"logprobs\":";
  if (output_.num_logprobs >= 0) {
    choice.logprobs.take(out);
  } else {
    out += "null";
  }
}

void ResponseWriter::append_chunk_usage(size_t index, std::string& out) const {
  if (!output_.include_usage) return;
  out += ",\"usage\":";
  if (!output_.continuous_usage) {
    out += "null";
    return;
  }
  append_usage({.num_prompt_tokens = prompt_of(index).num_tokens,
                .num_output_tokens = output_.prompt_only ? 0 : choices_[index]->num_tokens},
               out);
}

void ResponseWriter::finish(std::string& out) {
  NANOCP_CHECK(done());
  if (streams()) {
    if (output_.include_usage) {
      out += "data: ";
      out += head_;
      out += "],\"usage\":";
      append_usage(usage(), out);
      out += "}\n\n";
    }
    out += kDone;
    return;
  }
  out += head_;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) out.push_back(',');
    append_choice(i, out);
  }
  out += "],\"usage\":";
  append_usage(usage(), out);
  if (output_.return_token_ids && is_chat()) {
    out += ",\"prompt_token_ids\":";
    append_ids(output_.prompts.front().token_ids, out);
  }
  out.push_back('}');
}

void ResponseWriter::append_choice(size_t index, std::string& out) {
  Choice& choice = *choices_[index];
  out += "{\"index\":";
  append_number(index, out);
  if (is_chat()) {
    append_message(choice, out);
  } else {
    out += ",\"text\":";
    append_string(choice.content, out);
  }
  append_logprobs(choice, out);
  append_end(choice, out);
  if (output_.return_token_ids) {
    out += ",\"token_ids\":";
    append_ids(choice.token_ids, out);
    if (!is_chat()) {
      out += ",\"prompt_token_ids\":";
      append_ids(prompt_of(index).token_ids, out);
    }
  }
  out.push_back('}');
}

void ResponseWriter::fail(const ApiError& error, std::string& out) const {
  if (!streams()) {
    out += to_json(error);
    return;
  }
  out += "data: ";
  out += to_json(error);
  out += "\n\n";
  out += kDone;
}

Usage ResponseWriter::usage() const {
  Usage usage;
  for (const PromptInfo& prompt : output_.prompts) usage.num_prompt_tokens += prompt.num_tokens;
  if (output_.prompt_only) return usage;
  for (const auto& choice : choices_) usage.num_output_tokens += choice->num_tokens;
  return usage;
}

ResponseWriter::~ResponseWriter() = default;
ResponseWriter::ResponseWriter(ResponseWriter&&) noexcept = default;
ResponseWriter& ResponseWriter::operator=(ResponseWriter&&) noexcept = default;

FinishReason ResponseWriter::finish_reason(size_t index) const {
  return choices_[index]->finish_reason;
}

}  // namespace nanocp::api
