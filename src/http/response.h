// The answer to one request, whole or as a stream. Shared by the server and whoever answers; every
// function may be called from any thread and none of them blocks. A response that its last owner
// drops before it was begun is answered with 500; a stream that was not finished is cut off.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/message.h"

namespace nanocp::http {

class Connection;

class Response {
 public:
  // Made by the server.
  Response(std::shared_ptr<Connection> connection, uint64_t exchange);
  ~Response();
  Response(const Response&) = delete;
  Response& operator=(const Response&) = delete;

  // A field of the answer to come besides those it is begun with. Ignored when it has begun.
  void add_header(Header header);

  // The whole answer. Content-Length, Connection, Date and x-request-id are added. Ignored after a
  // send or begin_stream before it.
  void send(int status, Headers headers, std::string body);

  // An answer whose body comes in pieces: status and headers go out with the first piece or at
  // once, by chunks where the client understands them. Likewise ignored after another.
  void begin_stream(int status, Headers headers);
  // The next piece. False when nobody reads any more: the client has left, or left more unread
  // than Options::unsent_bytes_max. Whatever is written then is dropped.
  bool write(std::string_view bytes);
  void finish();

  // `fn` is called once, on a thread of the server, when the client leaves before the answer is
  // complete; at once, on this thread, when it has left already. It must not block. Only the last
  // `fn` counts.
  void on_disconnect(std::function<void()> fn);
  bool is_connected() const;

 private:
  const std::shared_ptr<Connection> connection_;
  const uint64_t exchange_;  // which request of the connection this answers
};

}  // namespace nanocp::http
