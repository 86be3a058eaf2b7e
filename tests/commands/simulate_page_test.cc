// The page and the picture of `nanocp simulate --html --png`: their structure, and how a browser
// shows the page where there is one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>

#include "browser.h"
#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

std::vector<std::string> sweep(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {
      "simulate", "qwen3-30b-a3b", "--instances", "4",          "--rate",
      "4,12",     "--duration",    "20",          "--policies", "bound/least_requests,dcp"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

size_t count_of(const std::string& text, const std::string& word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open);
  EXPECT_NE(begin, std::string::npos);
  const size_t end = page.find("</script>", begin);
  return json::parse(page.substr(begin + open.size(), end - begin - open.size()));
}

TEST(SimulatePage, IsOneFileWithChartsOfEveryRun) {
  const TempFolder folder;
  const std::string file = folder.path() / "page.html";
  const auto result = run_program(sweep({"--html", file, "--seeds", "1,2"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "") << "no progress bar where stderr is no terminal";
  const std::string page = read_whole_file(file);
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0U);
  EXPECT_EQ(page.find("{{"), std::string::npos) << "something was not filled in";
  EXPECT_EQ(count_of(page, "<section class=\"run\""), 4U) << "those of the first seed";
  EXPECT_EQ(count_of(page, "<svg "), count_of(page, "</svg>"));
  EXPECT_EQ(count_of(page, "<svg "), 6U + 4U * 7U);
  for (const char* title :
       {"P99 TPOT", "Requests that keep the TPOT objective", "Straggler ratio", "KV occupancy",
        "Degree by prompt length", "Queueing delay by prompt length", "Step time"}) {
    EXPECT_NE(page.find(std::string("<h3>") + title + "</h3>"), std::string::npos) << title;
  }
  // Nothing is loaded from elsewhere.
  std::string rest = page;
  rest = std::regex_replace(rest, std::regex("http://www.w3.org/2000/svg"), "");
  EXPECT_EQ(rest.find("http:"), std::string::npos);
  EXPECT_EQ(rest.find("https:"), std::string::npos);
  EXPECT_EQ(rest.find(" src="), std::string::npos);

  const json data = data_of(page);
  ASSERT_EQ(data["runs"].size(), 8U);
  const json& steps = data["runs"][0]["timeline"];
  ASSERT_GT(steps.size(), 100U);
  for (const json& step : steps) {
    ASSERT_GE(step["start_us"].get<int64_t>(), 10'000'000) << "from half of the duration";
    for (const char* field :
         {"dense_us", "route_us", "attention_us", "idle_us", "num_rows", "num_kv_tokens"}) {
      ASSERT_EQ(step[field].size(), 4U) << field;
    }
  }
}

TEST(SimulatePage, WhatWasRecordedIsInTheJson) {
  const TempFolder folder;
  const std::string file = folder.path() / "runs.json";
  const auto result = run_program(sweep(
      {"--json", file, "--timeline-at", "5", "--timeline-steps", "10", "--sample-every", "2"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(read_whole_file(file));
  for (const json& run : document["runs"]) {
    EXPECT_EQ(run["timeline"].size(), 10U);
    EXPECT_GT(run["samples"].size(), 8U);
    EXPECT_GE(run["samples"][0]["straggler_max"], run["samples"][0]["straggler_ratio"]);
    double sum_us = 0.0;
    for (const json& part : run["mean_phases"]) sum_us += part.get<double>();
    EXPECT_NEAR(sum_us, run["mean_step_us"], 0.01 * sum_us);
    int64_t num_finished = 0;
    for (const json& count : run["num_requests_by_degree"]) num_finished += count.get<int64_t>();
    int64_t in_classes = 0;
    for (const json& one : run["by_class"]) {
      EXPECT_GE(one["queue_us"]["p99"], one["queue_us"]["p90"]);
      for (const json& count : one["num_requests_by_degree"]) in_classes += count.get<int64_t>();
    }
    EXPECT_EQ(num_finished, run["all"]["num_requests"]);
    EXPECT_EQ(in_classes, num_finished);
  }
}

TEST(SimulatePage, NamesFromOutsideAreEscaped) {
  const TempFolder folder;
  const std::string trace = folder.write(
      "<script>alert(1)<!--&.csv", "arrival_s,input_tokens,output_tokens\n0,100,20\n1,9000,5\n");
  const std::string file = folder.path() / "page.html";
  const auto result = run_program(sweep({"--trace", trace, "--html", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string page = read_whole_file(file);
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;!--&amp;.csv"), std::string::npos);
  EXPECT_EQ(data_of(page)["workload"], trace);
}

TEST(SimulatePage, ThePictureHasTheCharts) {
  if (!has_program("rsvg-convert")) GTEST_SKIP() << "no rsvg-convert (package librsvg2-bin)";
  const TempFolder folder;
  const std::string file = folder.path() / "picture.png";
  const auto result = run_program(sweep({"--png", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string bytes = read_whole_file(file);
  const auto size = png_size(bytes);
  ASSERT_TRUE(size.has_value());
  EXPECT_EQ(size->first, 2U * 1046U);
  EXPECT_GT(size->second, 1500U);
  EXPECT_GT(bytes.size(), 50'000U) << "it is all but empty";
  EXPECT_FALSE(std::filesystem::exists(file + ".svg"));
}

TEST(SimulatePage, APictureWithoutItsConverterIsRefusedBeforeTheRun) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "/nonexistent", 1);
  const auto result = run_program(sweep({"--png", "picture.png"}));
  setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("librsvg2-bin"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
}

TEST(SlowSimulatePage, ABrowserShowsIt) {
  if (!has_program("chromium")) GTEST_SKIP() << "no chromium (package chromium)";
  const TempFolder folder;
  const std::string file = folder.path() / "page.html";
  ASSERT_EQ(run_program(sweep({"--html", file})).exit_code, 0);
  // Measured once the page's own script is through.
  std::string page = read_whole_file(file);
  const std::string probe =
      "<script>setTimeout(() => { const root = document.documentElement;"
      "document.body.dataset.overflow = root.scrollWidth - root.clientWidth;"
      "document.body.dataset.bars = document.querySelectorAll('.bars rect').length;"
      "document.body.dataset.shown = "
      "document.querySelectorAll('[data-run]:not([hidden])').length; }, 1000)</script>";
  page.insert(page.rfind("</body>"), probe);
  folder.write("page.html", page);

  const Browser browser = {.folder = folder};
  for (const int width : {1300, 500}) {
    const auto dom = browser.open(file, width, {"--dump-dom"});
    ASSERT_EQ(dom.exit_code, 0) << dom.err;
    EXPECT_NE(dom.out.find("data-ready=\"yes\""), std::string::npos);
    EXPECT_EQ(dom.out.find("class=\"error\""), std::string::npos) << "the page's script failed";
    EXPECT_NE(dom.out.find("data-overflow=\"0\""), std::string::npos) << "wider than the window";
    EXPECT_NE(dom.out.find("data-shown=\"1\""), std::string::npos) << "one run at a time";
    std::smatch bars;
    ASSERT_TRUE(std::regex_search(dom.out, bars, std::regex("data-bars=\"([0-9]+)\"")));
    EXPECT_GE(std::stoi(bars[1]), 4 * 5) << "parts of the chosen step on four instances";
  }
  const std::string picture = folder.path() / "page.png";
  ASSERT_EQ(browser.open(file, 1300, {"--screenshot=" + picture}).exit_code, 0);
  const std::string bytes = read_whole_file(picture);
  const auto size = png_size(bytes);
  ASSERT_TRUE(size.has_value());
  EXPECT_EQ(size->first, 1300U);
  EXPECT_GT(bytes.size(), 60'000U) << "it is all but empty";
}

}  // namespace
}  // namespace nanocp::tests
