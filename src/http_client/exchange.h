// One request and its answer on one connection: inside of Client. Everything on the loop's thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/optional.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "http_client/client.h"

namespace nanocp::http_client {

namespace asio = boost::asio;
namespace beast = boost::beast;
using boost::asio::ip::tcp;
using boost::system::error_code;

// A connection that may have carried answers before: the server may have closed it since.
struct Connection {
  explicit Connection(asio::io_context& io) : socket(io) {}
  tcp::socket socket;
  bool is_used = false;
};

class Exchange;

// A Beast body that keeps nothing: bytes go to the receiver as they are parsed.
struct ForwardBody {
  // Beast asks for these names. NOLINTBEGIN(readability-identifier-naming)
  struct value_type {
    Exchange* exchange = nullptr;
  };
  class reader {
   public:
    template <bool kIsRequest, typename Fields>
    reader(beast::http::header<kIsRequest, Fields>& /*head*/, value_type& value) : value_(value) {}
    void init(const boost::optional<uint64_t>& /*length*/, error_code& ec) { ec = {}; }
    template <typename Buffers>
    size_t put(const Buffers& buffers, error_code& ec);
    void finish(error_code& ec) { ec = {}; }

   private:
    value_type& value_;
  };
  // NOLINTEND(readability-identifier-naming)
};

// What an exchange needs of its client; the client outlives it.
struct ExchangeHost {
  asio::io_context io{1};
  Options options;
  tcp::resolver::results_type endpoints;
  virtual ~ExchangeHost() = default;
  // A connection that is open and idle, or none.
  virtual std::unique_ptr<Connection> take_idle() = 0;
  virtual void keep_idle(std::unique_ptr<Connection> connection) = 0;
  virtual void forget(Exchange* exchange) = 0;
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(ExchangeHost& host, Request request, std::shared_ptr<Receiver> receiver);
  void start();
  void cancel();
  void take_body(std::string_view bytes);

 private:
  using Parser = beast::http::response_parser<ForwardBody>;

  void open(std::unique_ptr<Connection> idle);
  void connect();
  void converse();
  void read();
  void on_read(const error_code& ec, size_t num_bytes);
  bool parse();
  void report_head();
  void new_parser();
  void on_connection_end(const error_code& ec);
  void arm(int64_t deadline_us, End on_expiry);
  void finish(End end, const std::string& detail);
  std::string deadline_text(End end) const;

  ExchangeHost& host_;
  beast::http::request<beast::http::string_body> request_;
  std::shared_ptr<Receiver> receiver_;
  std::unique_ptr<Connection> connection_;
  asio::steady_timer timer_;
  End on_expiry_ = End::kConnectDeadline;
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  int64_t start_us_ = 0;
  int64_t now_us_ = 0;  // of the bytes that are being parsed
  bool has_bytes_ = false;
  bool has_head_ = false;
  bool has_body_ = false;
  bool is_written_ = false;
  bool is_unwanted_ = false;
  bool is_over_ = false;
};

template <typename Buffers>
size_t ForwardBody::reader::put(const Buffers& buffers, error_code& ec) {
  size_t num_bytes = 0;
  for (auto i = asio::buffer_sequence_begin(buffers); i != asio::buffer_sequence_end(buffers);
       ++i) {
    const asio::const_buffer piece = *i;
    value_.exchange->take_body({static_cast<const char*>(piece.data()), piece.size()});
    num_bytes += piece.size();
  }
  ec = {};
  return num_bytes;
}

}  // namespace nanocp::http_client
