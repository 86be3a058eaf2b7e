#include "http_client/client.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/clock.h"
#include "http_client/event_stream.h"
#include "http_client/fetch.h"
#include "http_client/test_server.h"

namespace nanocp::http_client {
namespace {

TEST(Url, HasHostPortAndPath) {
  const auto url = parse_url("http://example.test:8000/v1/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "example.test");
  EXPECT_EQ(url->port, "8000");
  EXPECT_EQ(url->path, "/v1");
  const auto address = parse_url("http://[::1]:81");
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(address->host, "::1");
  EXPECT_EQ(address->host_header(), "[::1]:81");
  EXPECT_EQ(parse_url("http://a")->port, "80");
}

TEST(Url, WhatIsNoneIsRefused) {
  EXPECT_NE(parse_url("https://a").error().message.find("https is not supported"),
            std::string::npos);
  for (const char* text :
       {"", "a:80", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://a:b",
        "http://a b", "http://u@a", "http://a/?q", "http://[::1", "http://[::1]x", "http://:80"}) {
    EXPECT_FALSE(parse_url(text).ok()) << text;
  }
}

std::vector<std::string> events_of(std::string_view bytes, size_t piece) {
  EventStream stream;
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    EXPECT_TRUE(stream.push(bytes.substr(at, piece),
                            [&](std::string_view data) { events.emplace_back(data); }));
  }
  EXPECT_FALSE(stream.is_inside_event());
  return events;
}

TEST(EventStream, EventsAreTheSameHoweverTheyAreCut) {
  const std::string_view bytes =
      ": a comment\r\n\r\ndata: one\n\ndata:two \r\n\r\nevent: x\rdata: caf\u00e9 \u6f22\rdata:\r\r"
      "id: 3\ndata\n\ndatum: no\n\ndata: [DONE]\n\n";
  const std::vector<std::string> expected = {"one", "two ", "caf\u00e9 \u6f22\n", "", "[DONE]"};
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    EXPECT_EQ(events_of(bytes, piece), expected) << "in pieces of " << piece;
  }
}

TEST(EventStream, AnEventHasALimit) {
  EventStream stream;
  const std::string piece(1 << 20, 'x');
  int num_taken = 0;
  while (stream.push(piece, [](std::string_view) {})) ASSERT_LT(++num_taken, 100);
  EXPECT_EQ(num_taken, 16);
}

// Keeps what it hears.
struct Listener : Receiver {
  int status = 0;
  std::string type;
  std::string body;
  std::vector<std::pair<std::string, int64_t>> pieces;
  bool is_over = false;
  End end = End::kComplete;
  std::string detail;
  int64_t end_us = 0;
  bool wants_more = true;
  std::function<void()> when_over;

  void on_head(int given, std::string_view content_type) override {
    EXPECT_EQ(status, 0);
    status = given;
    type = content_type;
  }
  bool on_body(std::string_view bytes, int64_t now_us) override {
    EXPECT_NE(status, 0);
    body += bytes;
    pieces.emplace_back(bytes, now_us);
    return wants_more;
  }
  void on_end(End given, const std::string& text, int64_t now_us) override {
    EXPECT_FALSE(is_over);
    is_over = true;
    end = given;
    detail = text;
    end_us = now_us;
    if (when_over) when_over();
  }
};

Options options_for(const std::string& url) {
  return {.server = *parse_url(url),
          .connect_deadline_us = 5'000'000,
          .first_byte_deadline_us = 5'000'000,
          .deadline_us = 10'000'000};
}

// Sends one request and waits for its end.
std::shared_ptr<Listener> exchange(Client& client, Request request = {.target = "/x"}) {
  const auto listener = std::make_shared<Listener>();
  listener->when_over = [&client] { client.stop(); };
  client.send(std::move(request), listener);
  client.run();
  return listener;
}

std::shared_ptr<Listener> exchange_with(const TestServer& server, Options options) {
  Client client(std::move(options));
  EXPECT_TRUE(client.resolve().ok()) << server.url();
  return exchange(client);
}

TEST(Client, PiecesArriveWhenTheyWereSent) {
  const TestServer server([](TestServer::Call& call) {
    call.begin_stream();
    call.wait_ms(60);
    call.send_chunk("one");
    call.wait_ms(60);
    call.send_chunk("two");
    call.end_stream();
  });
  const int64_t start_us = SteadyClock().now_us();
  const auto heard = exchange_with(server, options_for(server.url()));
  EXPECT_EQ(heard->end, End::kComplete) << heard->detail;
  EXPECT_EQ(heard->status, 200);
  EXPECT_EQ(heard->type, "text/event-stream");
  ASSERT_EQ(heard->pieces.size(), 2U);
  EXPECT_EQ(heard->pieces[0].first, "one");
  EXPECT_GE(heard->pieces[0].second - start_us, 59'000);
  EXPECT_GE(heard->pieces[1].second - heard->pieces[0].second, 40'000);
  EXPECT_LT(heard->pieces[1].second - start_us, 2'000'000);
}

TEST(Client, RequestsGoOutAsGiven) {
  std::string head;
  std::string body;
  const TestServer server([&](TestServer::Call& call) {
    head = call.head;
    body = call.body;
    call.answer(201, "text/plain", "done");
  });
  Client client(options_for(server.url()));
  ASSERT_TRUE(client.resolve().ok());
  const std::string large(3 << 20, 'y');
  const auto heard = exchange(client, {.method = "POST",
                                       .target = "/v1/x",
                                       .headers = {{"Authorization", "Bearer k"}},
                                       .body = large});
  EXPECT_EQ(heard->status, 201);
  EXPECT_EQ(heard->body, "done");
  EXPECT_EQ(body, large);
  EXPECT_EQ(head.rfind("POST /v1/x HTTP/1.1\r\n", 0), 0U) << head;
  EXPECT_NE(head.find("Authorization: Bearer k"), std::string::npos);
  EXPECT_NE(head.find("Host: 127.0.0.1:"), std::string::npos);
}

TEST(Client, ConnectionsAreUsedAgainAndReplacedWhenTheServerClosedThem) {
  TestServer server([](TestServer::Call& call) {
    call.answer(200, "text/plain", std::to_string(call.index));
    if (call.index_on_connection == 1) call.close();  // after it has promised to keep it
  });
  Client client(options_for(server.url()));
  ASSERT_TRUE(client.resolve().ok());
  for (int i = 0; i < 5; ++i) {
    const auto heard = exchange(client);
    EXPECT_EQ(heard->end, End::kComplete) << heard->detail;
    EXPECT_EQ(heard->body, std::to_string(i));
  }
  EXPECT_EQ(server.num_connections(), 3);
}

TEST(Client, AnswersWithoutLengthEndWithTheConnection) {
  const TestServer server([](TestServer::Call& call) {
    call.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall of it");
    call.close();
  });
  const auto heard = exchange_with(server, options_for(server.url()));
  EXPECT_EQ(heard->end, End::kComplete) << heard->detail;
  EXPECT_EQ(heard->body, "all of it");
}

TEST(Client, CutAndWrongAnswersAreTold) {
  const auto end_of = [](const char* bytes) {
    const TestServer server([bytes](TestServer::Call& call) {
      call.send(bytes);
      call.close();
    });
    return exchange_with(server, options_for(server.url()))->end;
  };
  EXPECT_EQ(end_of(""), End::kCut);
  EXPECT_EQ(end_of("HTTP/1.1 200 OK\r\nContent-Le"), End::kCut);
  EXPECT_EQ(end_of("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), End::kCut);
  EXPECT_EQ(end_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), End::kCut);
  EXPECT_EQ(end_of("SSH-2.0-OpenSSH\r\n\r\n"), End::kMalformed);
  EXPECT_EQ(end_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"),
            End::kMalformed);
  const std::string large = "HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n";
  EXPECT_EQ(end_of(large.c_str()), End::kMalformed);
}

TEST(Client, EveryWaitHasADeadline) {
  const TestServer server([](TestServer::Call& call) {
    call.begin_stream();
    if (call.target() == "/slow") {
      for (int i = 0; i < 30 && !call.wait_for_close(0); ++i) {
        call.send_chunk("x");
        call.wait_ms(50);
      }
    }
    EXPECT_TRUE(call.wait_for_close(5000)) << "the client hangs up";
    call.close();
  });
  Options options = options_for(server.url());
  options.first_byte_deadline_us = 120'000;
  options.deadline_us = 400'000;
  Client client(options);
  ASSERT_TRUE(client.resolve().ok());
  int64_t start_us = SteadyClock().now_us();
  auto heard = exchange(client, {.target = "/silent"});
  EXPECT_EQ(heard->end, End::kFirstByteDeadline);
  EXPECT_EQ(heard->detail.rfind("no byte of an answer from 127.0.0.1:", 0), 0U) << heard->detail;
  EXPECT_NE(heard->detail.find(" within 0.12 s"), std::string::npos) << heard->detail;
  EXPECT_NEAR(static_cast<double>(heard->end_us - start_us), 120e3, 90e3);
  start_us = SteadyClock().now_us();
  heard = exchange(client, {.target = "/slow"});
  EXPECT_EQ(heard->end, End::kDeadline);
  EXPECT_NEAR(static_cast<double>(heard->end_us - start_us), 400e3, 200e3);
}

TEST(Client, NobodyListeningIsAnError) {
  std::string url;
  {
    url = TestServer([](TestServer::Call&) {}).url();
  }
  Client client(options_for(url));
  ASSERT_TRUE(client.resolve().ok());
  const auto heard = exchange(client);
  EXPECT_EQ(heard->end, End::kNotConnected);
  EXPECT_EQ(heard->detail, "Connection refused");
}

TEST(Client, BothSidesCanEndIt) {
  const TestServer server([](TestServer::Call& call) {
    call.begin_stream();
    call.send_chunk("some");
    EXPECT_TRUE(call.wait_for_close(5000)) << "the client hangs up";
    call.close();
  });
  Client client(options_for(server.url()));
  ASSERT_TRUE(client.resolve().ok());
  const auto unwanted = std::make_shared<Listener>();
  unwanted->wants_more = false;
  unwanted->when_over = [&] { client.stop(); };
  client.send({.target = "/"}, unwanted);
  client.run();
  EXPECT_EQ(unwanted->end, End::kCancelled);

  const auto cancelled = std::make_shared<Listener>();
  cancelled->when_over = [&] { client.stop(); };
  client.send({.target = "/"}, cancelled);
  client.at(SteadyClock().now_us() + 50'000, [&] { client.cancel_all(); });
  client.run();
  EXPECT_EQ(cancelled->end, End::kCancelled);
  EXPECT_EQ(cancelled->body, "some");
}

// A server that refuses a large body without reading it.
TEST(Client, AnAnswerMayComeBeforeTheRequestIsSent) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  std::thread server([listener] {
    const int socket = ::accept(listener, nullptr, nullptr);
    const std::string_view text = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
    EXPECT_GT(::send(socket, text.data(), text.size(), MSG_NOSIGNAL), 0);
    char byte = 0;
    for (int i = 0; i < 500 && ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ::close(socket);
  });
  Client client(options_for("http://127.0.0.1:" + std::to_string(ntohs(address.sin_port))));
  ASSERT_TRUE(client.resolve().ok());
  const auto heard =
      exchange(client, {.method = "POST", .target = "/", .body = std::string(64 << 20, 'x')});
  EXPECT_EQ(heard->end, End::kComplete) << heard->detail;
  EXPECT_EQ(heard->status, 413);
  server.join();
  ::close(listener);
}

std::string target_of(int i) {
  std::string target = "/";
  return target.append(std::to_string(i));
}

TEST(Client, ManyStreamsAtOnce) {
  const int num_streams = 200;
  const TestServer server([](TestServer::Call& call) {
    call.begin_stream();
    for (int i = 0; i < 5; ++i) {
      call.send_chunk(call.target());
      call.wait_ms(20);
    }
    call.end_stream();
  });
  Client client(options_for(server.url()));
  ASSERT_TRUE(client.resolve().ok());
  std::vector<std::shared_ptr<Listener>> heard;
  int num_over = 0;
  for (int i = 0; i < num_streams; ++i) {
    heard.push_back(std::make_shared<Listener>());
    heard.back()->when_over = [&] {
      if (++num_over == num_streams) client.stop();
    };
    client.send({.target = target_of(i)}, heard.back());
  }
  client.run();
  for (int i = 0; i < num_streams; ++i) {
    std::string expected;
    for (int k = 0; k < 5; ++k) expected += target_of(i);
    EXPECT_EQ(heard[static_cast<size_t>(i)]->end, End::kComplete);
    EXPECT_EQ(heard[static_cast<size_t>(i)]->body, expected);
  }
}

TEST(Fetch, GivesTheAnswerOrWhyThereIsNone) {
  TestServer server([](TestServer::Call& call) {
    call.answer(404, "application/json", std::string(call.target() == "/large" ? 2000 : 3, 'x'));
  });
  const auto answer = fetch(options_for(server.url()), {.target = "/a"}, 1000);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->status, 404);
  EXPECT_EQ(answer->body, "xxx");
  const auto large = fetch(options_for(server.url()), {.target = "/large"}, 1000);
  ASSERT_FALSE(large.ok());
  EXPECT_NE(large.error().message.find("more than 1000 bytes"), std::string::npos)
      << large.error().message;
}

}  // namespace
}  // namespace nanocp::http_client
