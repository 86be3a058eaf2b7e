#include "http_client/fetch.h"

namespace nanocp::http_client {
namespace {

struct Collector final : Receiver {
  Client* client = nullptr;
  size_t bytes_max = 0;
  Answer answer;
  End end = End::kCancelled;
  std::string detail;

  void on_head(int status, std::string_view /*content_type*/) override { answer.status = status; }
  bool on_body(std::string_view bytes, int64_t /*now_us*/) override {
    answer.body += bytes;
    return answer.body.size() <= bytes_max;
  }
  void on_end(End given, const std::string& text, int64_t /*now_us*/) override {
    end = given;
    detail = answer.body.size() > bytes_max
                 ? "the answer has more than " + std::to_string(bytes_max) + " bytes"
                 : text;
    client->stop();
  }
};

}  // namespace

Result<Answer> fetch(const Options& options, Request request, size_t bytes_max) {
  Client client(options);
  NANOCP_RETURN_IF_ERROR(client.resolve());
  std::string what = request.method + " http://" + options.server.host_header() + request.target;
  const auto collector = std::make_shared<Collector>();
  collector->client = &client;
  collector->bytes_max = bytes_max;
  client.send(std::move(request), collector);
  client.run();  // the deadlines of the exchange end it
  if (collector->end == End::kComplete) return std::move(collector->answer);
  const bool is_late = collector->end == End::kConnectDeadline ||
                       collector->end == End::kDeadline ||
                       collector->end == End::kFirstByteDeadline;
  return Error{is_late ? ErrorCode::kDeadlineExceeded : ErrorCode::kInternal,
               std::move(what.append(": ").append(collector->detail))};
}

}  // namespace nanocp::http_client
