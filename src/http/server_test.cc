#include "http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "http/test_client.h"

namespace nanocp::http {
namespace {

// A server whose handler the test gives; remembers all exchanges.
struct Site {
  explicit Site(Handler handler, Options options = {}) {
    options.port = 0;
    options.on_exchange = [this](const Exchange& exchange) {
      const std::scoped_lock lock(mutex);
      exchanges.push_back(exchange);
    };
    auto started = Server::start(std::move(options), std::move(handler));
    EXPECT_TRUE(started.ok()) << (started.ok() ? "" : started.error().message);
    server = std::move(*started);
  }
  TestClient client() const { return TestClient(server->port()); }
  size_t num_exchanges() {
    const std::scoped_lock lock(mutex);
    return exchanges.size();
  }

  std::mutex mutex;
  std::vector<Exchange> exchanges;
  std::unique_ptr<Server> server;
};

// Says what it was asked.
void echo(const Request& request, const std::shared_ptr<Response>& response) {
  response->send(200, {{"Content-Type", "text/plain"}},
                 request.method + " " + request.path + " " + request.query + " " + request.body);
}

std::string body_of(const std::string& answer) {
  const size_t end = answer.find("\r\n\r\n");
  return end == std::string::npos ? "" : answer.substr(end + 4);
}

bool starts_with(const std::string& text, std::string_view start) {
  return text.starts_with(start);
}

template <typename Condition>
bool holds_soon(Condition condition) {
  for (int i = 0; i < 1000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  Site site(echo);
  TestClient client = site.client();
  client.send("GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nx-request-id: my-id\r\n\r\n");
  std::string answer = client.read_answer();
  EXPECT_TRUE(starts_with(answer, "HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("x-request-id: my-id\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("Date: "), std::string::npos);
  EXPECT_EQ(body_of(answer), "GET /a b x=1 ");
  client.send("POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
  EXPECT_EQ(body_of(client.read_answer()), "POST /c  body");
  ASSERT_TRUE(holds_soon([&] { return site.num_exchanges() == 2; }));
  EXPECT_EQ(site.exchanges[0].path, "/a b");
  EXPECT_EQ(site.exchanges[0].id, "my-id");
  EXPECT_EQ(site.exchanges[1].request_bytes, 4);
  EXPECT_EQ(site.exchanges[1].status, 200);
  EXPECT_TRUE(site.exchanges[1].complete);
}

TEST(HttpServer, AnIdThatIsUnfitForLogsIsReplaced) {
  Site site(echo);
  TestClient client = site.client();
  client.send("GET / HTTP/1.1\r\nHost: h\r\nx-request-id: a\x1b[31m\r\n\r\n");
  const std::string answer = client.read_answer();
  EXPECT_EQ(answer.find("[31m"), std::string::npos) << answer;
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  Site site([](const Request& request, const std::shared_ptr<Response>& response) {
    // The first takes longest.
    const int left = 40 - 4 * std::stoi(request.query);
    std::this_thread::sleep_for(std::chrono::milliseconds(left));
    response->send(200, {}, request.query + ";");
  });
  TestClient client = site.client();
  std::string all;
  std::string expected;
  for (int i = 0; i < 10; ++i) {
    all += "GET /?" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
    expected += std::to_string(i) + ";";
  }
  client.send(all);
  std::string bodies;
  for (int i = 0; i < 10; ++i) bodies += body_of(client.read_answer());
  EXPECT_EQ(bodies, expected);
}

TEST(HttpServer, RequestsMayComeByteByByte) {
  Site site(echo);
  TestClient client = site.client();
  const std::string request =
      "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
      "\r\nGET /q HTTP/1.1\r\nHost: h\r\n\r\n";
  for (const char c : request) {
    ASSERT_TRUE(client.send(std::string_view(&c, 1)));
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  EXPECT_EQ(body_of(client.read_answer()), "POST /p  abcde");
  EXPECT_EQ(body_of(client.read_answer()), "GET /q  ");
}

TEST(HttpServer, RefusesWhatIsNotHttp) {
  Site site(echo);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nonsense\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\n\r\n", "400"},  // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
      {"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
      {"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
      {"GET x HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505"},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
       "400"},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "400"},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc", "400"},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nabc", "501"},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", "400"},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: miracles\r\n\r\nabc", "417"},
  };
  for (const auto& [request, status] : cases) {
    TestClient client = site.client();
    client.send(request);
    const std::string answer = client.read_all();
    EXPECT_EQ(answer.substr(0, 7), "HTTP/1.") << request << "\n" << answer;
    EXPECT_EQ(answer.substr(9, 3), status) << request << "\n" << answer;
    EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
    EXPECT_FALSE(client.is_open()) << request;
  }
}

TEST(HttpServer, LimitsHeadersAndBodies) {
  Options options;
  options.header_bytes_max = 2000;
  options.num_headers_max = 20;
  options.body_bytes_max = 1000;
  options.error_body = [](int status, const std::string& message) {
    return "{" + std::to_string(status) + " " + message + "}";
  };
  Site site(echo, options);
  const std::string start = "POST / HTTP/1.1\r\nHost: h\r\n";
  std::string many;
  for (int i = 0; i < 30; ++i) many += "a: b\r\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {start + "long: " + std::string(3000, 'x'), "431"},
      {start + many + "\r\n", "431"},
      {start + "Content-Length: 1001\r\n\r\n", "413"},
      {start + "Content-Length: 99999999999999999999\r\n\r\n", "400"},
      {start + "Transfer-Encoding: chunked\r\n\r\n500\r\n" + std::string(0x500, 'x'), "413"},
      {start + "Transfer-Encoding: chunked\r\n\r\n5;" + std::string(200'000, 'x'), "400"},
  };
  for (const auto& [request, status] : cases) {
    TestClient client = site.client();
    client.send(request);
    const std::string answer = client.read_all();
    EXPECT_TRUE(starts_with(answer, "HTTP/1.1 " + status)) << answer;
    EXPECT_TRUE(starts_with(body_of(answer), "{" + status)) << answer;
  }
}

TEST(HttpServer, LateHeadersAndBodiesEndWith408AndIdleConnectionsClose) {
  Options options;
  options.header_timeout_s = 0.15;
  options.body_timeout_s = 0.15;
  options.idle_timeout_s = 0.15;
  Site site(echo, options);
  TestClient silent = site.client();
  TestClient slow_header = site.client();
  TestClient slow_body = site.client();
  TestClient idle = site.client();
  slow_header.send("GET / HTTP/1.1\r\nHo");
  slow_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(starts_with(slow_header.read_all(), "HTTP/1.1 408"));
  EXPECT_TRUE(starts_with(slow_body.read_all(), "HTTP/1.1 408"));
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_FALSE(silent.is_open());
  EXPECT_TRUE(starts_with(idle.read_all(), "HTTP/1.1 200"));
  EXPECT_FALSE(idle.is_open());
  EXPECT_TRUE(holds_soon([&] { return site.server->counters().num_connections == 0; }));
}

TEST(HttpServer, ExpectationIsMetBeforeTheBody) {
  Site site(echo);
  TestClient client = site.client();
  client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.forget();
  client.send("abc");
  EXPECT_EQ(body_of(client.read_answer()), "POST /  abc");
}

TEST(HttpServer, HeadHasNoBodyAndHttp10Closes) {
  Site site(echo);
  TestClient client = site.client();
  client.send("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\nGET /y HTTP/1.0\r\n\r\n");
  const std::string answers = client.read_all();
  EXPECT_NE(answers.find("Content-Length: 9\r\n"), std::string::npos) << answers;
  EXPECT_EQ(answers.find("HEAD /x"), std::string::npos) << answers;
  EXPECT_NE(answers.find("HTTP/1.0 200 OK"), std::string::npos) << answers;
  EXPECT_NE(answers.find("GET /y"), std::string::npos);
  EXPECT_FALSE(client.is_open());
}

TEST(HttpServer, StreamsInChunks) {
  Site site([](const Request&, const std::shared_ptr<Response>& response) {
    response->begin_stream(200, {{"Content-Type", "text/event-stream"}});
    std::thread([response] {
      for (int i = 0; i < 3; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        EXPECT_TRUE(response->write("data: " + std::to_string(i) + "\n\n"));
      }
      response->finish();
    }).detach();
  });
  TestClient client = site.client();
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string answer = client.read_until("0\r\n\r\n");
  EXPECT_EQ(body_of(answer),
            "9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n");
  // Clients of HTTP/1.0 know no chunks: the end of the connection is the end of the body.
  TestClient old = site.client();
  old.send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(body_of(old.read_all()), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
}

TEST(HttpServer, NoticesThatTheClientLeft) {
  std::promise<void> left;
  std::shared_ptr<Response> kept;
  Site site([&](const Request&, const std::shared_ptr<Response>& response) {
    kept = response;
    response->on_disconnect([&left] { left.set_value(); });
  });
  for (const bool resets : {false, true}) {
    left = std::promise<void>();
    TestClient client = site.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (resets) {
      client.reset();
    } else {
      client.close();
    }
    ASSERT_EQ(left.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    EXPECT_FALSE(kept->is_connected());
    kept->send(200, {}, "nobody reads this");
  }
  ASSERT_TRUE(holds_soon([&] { return site.num_exchanges() == 2; }));
  EXPECT_FALSE(site.exchanges[0].complete);
  EXPECT_EQ(site.exchanges[0].status, 0);
}

TEST(HttpServer, AClientMayShutItsSendingHalf) {
  Site site([](const Request& request, const std::shared_ptr<Response>& response) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    echo(request, response);
  });
  TestClient client = site.client();
  client.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  client.shut_sending();
  const std::string answers = client.read_all();
  EXPECT_NE(answers.find("GET /1"), std::string::npos) << answers;
  EXPECT_NE(answers.find("GET /2"), std::string::npos) << answers;
  EXPECT_FALSE(client.is_open());
}

TEST(HttpServer, AClientThatReadsNothingIsDropped) {
  for (const bool by_size : {true, false}) {
    Options options;
    options.unsent_bytes_max = by_size ? 1 << 20 : 1 << 30;
    options.write_timeout_s = by_size ? 60.0 : 0.2;
    std::promise<void> left;
    std::atomic<bool> stop{false};
    Site site(
        [&](const Request&, const std::shared_ptr<Response>& response) {
          response->begin_stream(200, {});
          response->on_disconnect([&left] { left.set_value(); });
          const std::string piece(64 << 10, 'x');
          while (!stop && response->write(piece)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
          EXPECT_FALSE(response->write("more"));
        },
        options);
    TestClient client(site.server->port(), 4096);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    const auto status = left.get_future().wait_for(std::chrono::seconds(20));
    EXPECT_EQ(status, std::future_status::ready) << by_size;
    stop = true;
    EXPECT_TRUE(holds_soon([&] { return site.server->counters().num_connections == 0; }));
  }
}

TEST(HttpServer, HandlersThatThrowOrForgetAreAnswered) {
  Site site([](const Request& request, const std::shared_ptr<Response>& response) {
    if (request.path == "/throw") throw std::runtime_error("secret");
    if (request.path == "/cut") {
      response->begin_stream(200, {});
      response->write("part");
    }
  });
  TestClient client = site.client();
  client.send("GET /throw HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string thrown = client.read_answer();
  EXPECT_TRUE(starts_with(thrown, "HTTP/1.1 500")) << thrown;
  EXPECT_EQ(thrown.find("secret"), std::string::npos);
  client.send("GET /forget HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(starts_with(client.read_answer(), "HTTP/1.1 500"));
  client.send("GET /cut HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string cut = client.read_all();
  EXPECT_EQ(cut.find("0\r\n\r\n"), std::string::npos) << cut;
  EXPECT_FALSE(client.is_open());
}

TEST(HttpServer, HeadersOfAnAnswerCannotBreakOut) {
  Site site([](const Request&, const std::shared_ptr<Response>& response) {
    response->add_header({"x-added", "1"});
    response->send(200, {{"x-evil", "a\r\nx-injected: 1"}}, "ok");
  });
  TestClient client = site.client();
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string answer = client.read_answer();
  EXPECT_EQ(answer.find("\nx-injected"), std::string::npos) << answer;
  EXPECT_NE(answer.find("x-added: 1\r\n"), std::string::npos) << answer;
}

TEST(HttpServer, BeyondTheLimitOfConnectionsItSaysSo) {
  Options options;
  options.max_connections = 2;
  Site site(echo, options);
  TestClient first = site.client();
  TestClient second = site.client();
  ASSERT_TRUE(holds_soon([&] { return site.server->counters().num_connections == 2; }));
  TestClient third = site.client();
  EXPECT_TRUE(starts_with(third.read_all(), "HTTP/1.1 503"));
  first.close();
  ASSERT_TRUE(holds_soon([&] { return site.server->counters().num_connections < 2; }));
  TestClient fourth = site.client();
  fourth.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_TRUE(starts_with(fourth.read_answer(), "HTTP/1.1 200"));
}

TEST(HttpServer, DrainingFinishesOpenAnswers) {
  std::promise<void> begun;
  Site site([&](const Request& request, const std::shared_ptr<Response>& response) {
    if (request.path == "/slow") {
      begun.set_value();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    echo(request, response);
  });
  TestClient idle = site.client();
  idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  idle.read_answer();
  TestClient busy = site.client();
  busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
  begun.get_future().wait();
  site.server->begin_drain();
  EXPECT_EQ(idle.read_all(), "");
  EXPECT_FALSE(idle.is_open());
  site.server->stop(10.0);
  const std::string answer = busy.read_all();
  EXPECT_NE(answer.find("GET /slow"), std::string::npos) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
  EXPECT_FALSE(TestClient(site.server->port()).is_open());
}

TEST(HttpServer, StopDoesNotWaitForClients) {
  std::vector<std::shared_ptr<Response>> kept;
  std::atomic<int> num_left{0};
  auto site = std::make_unique<Site>(
      [&](const Request&, const std::shared_ptr<Response>& response) {
        response->begin_stream(200, {});
        response->on_disconnect([&num_left] { ++num_left; });
        kept.push_back(response);
      },
      Options{.num_handler_threads = 1});
  std::vector<TestClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(site->client());
    clients.back().send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  for (TestClient& client : clients) client.read_until("\r\n\r\n");
  site->server->stop(0.05);
  EXPECT_EQ(num_left, 20);
  site.reset();
  // Responses outlive their server.
  for (const auto& response : kept) {
    EXPECT_FALSE(response->write("x"));
    response->on_disconnect([&num_left] { ++num_left; });
  }
  EXPECT_EQ(num_left, 40);
  kept.clear();
}

TEST(HttpServer, SaysWhyItCannotListen) {
  Site site(echo);
  Options options;
  options.port = site.server->port();
  const auto second = Server::start(options, echo);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
  options.host = "no.such.host.invalid";
  EXPECT_FALSE(Server::start(options, echo).ok());
}

}  // namespace
}  // namespace nanocp::http
