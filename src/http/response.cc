#include "http/response.h"

#include "http/connection.h"

namespace nanocp::http {

Response::Response(std::shared_ptr<Connection> connection, uint64_t exchange)
    : connection_(std::move(connection)), exchange_(exchange) {}

Response::~Response() {
  connection_->abandon(exchange_);
}

void Response::add_header(Header header) {
  connection_->add_header(exchange_, std::move(header));
}

void Response::send(int status, Headers headers, std::string body) {
  connection_->send(exchange_, status, std::move(headers), std::move(body));
}

void Response::begin_stream(int status, Headers headers) {
  connection_->begin_stream(exchange_, status, std::move(headers));
}

bool Response::write(std::string_view bytes) {
  return connection_->write(exchange_, bytes);
}

void Response::finish() {
  connection_->finish(exchange_);
}

void Response::on_disconnect(std::function<void()> fn) {
  connection_->on_disconnect(exchange_, std::move(fn));
}

bool Response::is_connected() const {
  return connection_->is_connected(exchange_);
}

}  // namespace nanocp::http
