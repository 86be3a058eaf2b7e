#include "server/completion.h"

#include <chrono>
#include <utility>

#include "server/reply.h"

namespace nanocp::server {
namespace {

int64_t unix_time_s() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

api::ResponseIdentity identity_of(const api::OutputOptions& output, const std::string& request_id) {
  const char* prefix = output.endpoint == api::Endpoint::kChat ? "chatcmpl-" : "cmpl-";
  return {.id = prefix + request_id, .created_s = unix_time_s()};
}

const http::Headers& event_stream_headers() {
  // The last one asks proxies not to hold tokens back.
  static const http::Headers kHeaders = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                         {"Cache-Control", "no-cache"},
                                         {"X-Accel-Buffering", "no"}};
  return kHeaders;
}

class Completion final : public TokenSink {
 public:
  Completion(api::OutputOptions output, const CompletionTarget& target,
             const std::string& request_id, std::shared_ptr<http::Response> response)
      : loop_(*target.loop),
        context_(target.context),
        response_(std::move(response)),
        writer_(std::move(output), *context_, identity_of(output, request_id)) {}

  void admitted(TicketId ticket) override {
    ticket_ = ticket;
    if (!writer_.streams()) return;
    response_->begin_stream(200, event_stream_headers());
    writer_.begin(out_);
    send_events();
  }

  void refused(const Error& error) override {
    is_done_ = true;
    reply_error(*response_, api::from_refusal(error));
  }

  void token(size_t index, engine::TokenEvent& event) override {
    if (is_done_) return;
    // What its output must spell cannot go on: nobody can use a part of it.
    if (event.finish_reason == request::FinishReason::kError && event.summary != nullptr) {
      loop_.cancel(ticket_);
      return failed(invalid_argument(event.summary->error));
    }
    const api::Progress progress = writer_.push(index, event, out_);
    if (progress.cancel) loop_.end(ticket_, index);
    if (writer_.done()) return complete();
    if (writer_.streams()) send_events();
  }

  void failed(const Error& error) override {
    if (std::exchange(is_done_, true)) return;
    const api::ApiError told = api::from_error(error);
    if (!writer_.streams() || ticket_ == 0) return reply_error(*response_, told);
    writer_.fail(told, out_);
    send_events();
    response_->finish();
  }

 private:
  void send_events() {
    // A client that does not read has been dropped: so are its sequences.
    if (!out_.empty() && !response_->write(out_)) {
      is_done_ = true;
      loop_.cancel(ticket_);
    }
    out_.clear();
  }

  void complete() {
    is_done_ = true;
    writer_.finish(out_);
    if (!writer_.streams()) return reply_json(*response_, 200, std::move(out_));
    send_events();
    response_->finish();
  }

  EngineLoop& loop_;
  const std::shared_ptr<const api::ModelContext> context_;
  const std::shared_ptr<http::Response> response_;

  // The delivery thread's own.
  api::ResponseWriter writer_;
  TicketId ticket_ = 0;  // 0: not admitted
  std::string out_;
  bool is_done_ = false;
};

}  // namespace

void start_completion(api::GenerationRequest request, const CompletionTarget& target,
                      const std::string& request_id,
                      const std::shared_ptr<http::Response>& response) {
  auto sink = std::make_shared<Completion>(std::move(request.output), target, request_id, response);
  const auto ticket = target.loop->submit(std::move(request.requests), request_id, std::move(sink));
  if (!ticket.ok()) return reply_error(*response, api::from_error(ticket.error()));
  // Holds neither the response nor the sink, which hold the connection.
  response->on_disconnect([loop = target.loop, id = *ticket] { loop->cancel(id); });
}

}  // namespace nanocp::server
