// Lines are whole JSON, none is lost unless it is counted, and moved files are opened anew.
#include "server/access_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

namespace nanocp::server {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

class AccessLogFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("access_log_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string file(const char* name = "access.log") const { return (folder_ / name).string(); }
  static std::vector<json> lines_of(const std::string& file) {
    std::vector<json> lines;
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
    return lines;
  }
  // Until the file has as many lines; the log writes on its own thread.
  static void await_lines(const std::string& file, size_t count) {
    for (int i = 0; i < 2000 && lines_of(file).size() < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ASSERT_EQ(lines_of(file).size(), count);
  }

  fs::path folder_;
};

TEST(AccessLine, HasWhatIsKnownAndNothingElse) {
  AccessEntry entry;
  entry.unix_time_us = 1'767'323'045'678'000;
  entry.request_id = "a\"b\n\xff";
  entry.client = "127.0.0.1:1";
  entry.method = "GET";
  entry.path = "/health";
  entry.status = 200;
  json line = json::parse(access_line(entry));
  EXPECT_EQ(line["time"], "2026-01-02T03:04:05.678Z");
  EXPECT_EQ(line["request_id"], "a\"b\n\xEF\xBF\xBD");
  EXPECT_EQ(line.size(), 6U);
  EXPECT_EQ(access_line(entry).find('\n'), access_line(entry).size() - 1) << "one line";

  entry.model = "demo";
  entry.num_prompt_tokens = 7;
  entry.num_output_tokens = 0;
  entry.duration_s = 0.25;
  entry.first_token_s = 0.125;
  entry.degree = 3;
  entry.finish_reason = "stop";
  line = json::parse(access_line(entry));
  EXPECT_EQ(line["duration_ms"], 250.0);
  EXPECT_EQ(line["ttft_ms"], 125.0);
  EXPECT_EQ(line["output_tokens"], 0);
  EXPECT_EQ(line["degree"], 3);
  EXPECT_EQ(line["finish_reason"], "stop");
}

TEST_F(AccessLogFile, WritesEveryLineOfManyThreads) {
  auto log = AccessLog::open(file());
  ASSERT_TRUE(log.ok());
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t) {
    writers.emplace_back([&log, t] {
      AccessEntry entry;
      for (int i = 0; i < 500; ++i) {
        entry.status = 1000 * t + i;
        (*log)->write(entry);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  const uint64_t num_dropped = (*log)->num_dropped();
  log->reset();
  size_t num_lines = 0;
  uint64_t num_told = 0;
  for (const json& line : lines_of(file())) {
    if (line.contains("dropped_lines")) {
      num_told += line["dropped_lines"].get<uint64_t>();
    } else {
      ++num_lines;
    }
  }
  EXPECT_EQ(num_lines + num_dropped, 2000U);
  EXPECT_EQ(num_told, num_dropped);
}

TEST_F(AccessLogFile, AddsToAFileThatIsThere) {
  std::ofstream(file()) << "{}\n";
  auto log = AccessLog::open(file());
  ASSERT_TRUE(log.ok());
  (*log)->write({});
  log->reset();
  EXPECT_EQ(lines_of(file()).size(), 2U);
}

TEST_F(AccessLogFile, AMovedFileIsOpenedAnew) {
  auto log = AccessLog::open(file());
  ASSERT_TRUE(log.ok());
  (*log)->write({});
  await_lines(file(), 1);
  fs::rename(file(), file("access.log.1"));
  (*log)->write({});
  await_lines(file(), 1);
  EXPECT_EQ(lines_of(file("access.log.1")).size(), 1U);
}

TEST_F(AccessLogFile, AFileThatCannotBeWrittenIsNamed) {
  const auto log = AccessLog::open(file("no/such/folder.log"));
  ASSERT_FALSE(log.ok());
  EXPECT_NE(log.error().message.find("no/such/folder.log"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::server
