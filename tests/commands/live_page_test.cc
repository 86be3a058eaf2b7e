// How a browser shows the live page: the real page and the real JSON of made-up clusters, with a
// stub for the network.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "browser.h"
#include "server/cluster_json.h"
#include "server/live_page.h"

namespace nanocp::tests {
namespace {

using server::ClusterSnapshot;

// The cluster after `second` seconds: every third instance is fuller, all fill up with time, and
// request 7 lies on the first instances.
ClusterSnapshot cluster_at(int second, int num_instances) {
  ClusterSnapshot snapshot;
  snapshot.time_us = 1'000'000 * second;
  snapshot.block_size = 16;
  snapshot.policy = "dcp";
  server::LongRequest spread;
  spread.sequence = 7;
  spread.num_prompt_tokens = 16'000;
  for (int i = 0; i < num_instances; ++i) {
    server::InstanceSnapshot instance;
    instance.num_blocks = 1000;
    instance.num_used_blocks = 300 + 100 * second + (i % 3 == 0 ? 200 : 0);
    instance.num_rows = 4 + i % 3;
    snapshot.instances.push_back(instance);
    if (i < 3) spread.kv_tokens.emplace_back(i, 16 * 200);
  }
  spread.binding = num_instances > 1 ? 1 : 0;
  spread.num_output_tokens = 10 * second;
  snapshot.long_requests = {spread};
  snapshot.num_by_degree = {0, 20, 0, 1};
  snapshot.requests = {.num_waiting = 0, .num_running = 20 + second};
  snapshot.tokens.num_output_tokens = 100 * second;
  return snapshot;
}

// What GET /cluster answers to one request after the other.
std::string answers(int num_instances, const std::string& model) {
  nlohmann::json list = nlohmann::json::array();
  std::vector<server::HistoryRow> rows;
  for (int second = 1; second <= 4; ++second) {
    const ClusterSnapshot snapshot = cluster_at(second, num_instances);
    rows = {server::history_row(snapshot, 2.0 * second, static_cast<uint64_t>(100 * second))};
    list.push_back(server::cluster_json(
        {.model = model, .device = "CPU", .version = "1", .max_model_len = 4096},
        {.snapshot = snapshot, .history = rows, .now_us = snapshot.time_us}));
  }
  // As a JavaScript literal inside a script element.
  return std::regex_replace(list.dump(), std::regex("<"), "\\u003c");
}

// Answers with the next of `answers` (the last one again and again); asks for `key` unless it is
// empty; streams an answer to a chat that looks like markup.
std::string stub(const std::string& answers, const std::string& key = "") {
  return "<script>const answers = " + answers + "; let asked = 0; const key = '" + key + R"(';
window.fetch = async (path, options) => {
  if (key && (options.headers || {}).Authorization !== 'Bearer ' + key) {
    return new Response('{"error":{"message":"no key"}}', {status: 401});
  }
  if (path.startsWith('cluster')) {
    return new Response(answers[Math.min(asked++, answers.length - 1)]);
  }
  const chunk = text => 'data: ' + JSON.stringify({choices: [{delta: {content: text}}]}) + '\n\n';
  window.asked = JSON.parse(options.body);
  return new Response(chunk('<b id=bold>I ') + chunk('am') + chunk('</b>') +
    'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
};
</script>)";
}

// Notes what `measure` (an expression that gives an object of numbers and words) says after that
// time, as data-NAME="VALUE" of the window's outermost body.
std::string note(const std::string& measure, int after_ms) {
  return "<script>setTimeout(() => { const noted = " + measure +
         "; for (const name in noted) parent.document.body.setAttribute('data-' + name, "
         "noted[name]); }, " +
         std::to_string(after_ms) + ")</script>";
}

std::string noted(const std::string& dom, const std::string& name) {
  std::smatch match;
  const std::regex pattern("data-" + name + "=\"([^\"]*)\"");
  return std::regex_search(dom, match, pattern) ? match[1].str() : "nothing noted";
}

class SlowLivePage : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_program("chromium")) GTEST_SKIP() << "no chromium (package chromium)";
  }
  // The document after a while, in a frame of that width: windows are never as narrow as phones.
  std::string shown(const std::string& before, const std::string& after, int width) const {
    std::string page = server::live_page();
    page.insert(page.find("<script>"), before);
    page.insert(page.rfind("</body>"), after);
    folder_.write("page.html", page);
    const std::string file = folder_.write(
        "frame.html",
        "<!DOCTYPE html><body style='margin:0'><iframe src='page.html' style='border:0;"
        "height:4000px;width:" +
            std::to_string(width) + "px'></iframe></body>");
    const Browser browser = {.folder = folder_, .virtual_time_ms = 8000};
    // Files may look into one another's frames here, and no frame is painted to animate.
    const auto dom = browser.open(
        file, 1600,
        {"--dump-dom", "--allow-file-access-from-files", "--force-prefers-reduced-motion"});
    EXPECT_EQ(dom.exit_code, 0) << dom.err;
    return dom.out;
  }

  const TempFolder folder_;
};

constexpr const char* kLayout = R"(({
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  outside: [...document.querySelectorAll('header *, .card, .tiles li, #stage svg *, #charts svg *')]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1).length,
  broken: document.querySelectorAll('.broken').length,
  bars: document.querySelectorAll('#stage [data-bar=kv]').length,
  rows: document.querySelectorAll('#stage [data-bar=rows]').length,
  segments: document.querySelectorAll('#stage .segment').length,
  ribbons: document.querySelectorAll('#stage .ribbon').length,
  lines: document.querySelectorAll('#charts .line').length,
}))";

TEST_F(SlowLivePage, FitsPhonesAndDesktopsWithOneTo64Instances) {
  for (const int num_instances : {1, 4, 64}) {
    for (const int width : {380, 1400}) {
      const std::string dom =
          shown(stub(answers(num_instances, "demo")), note(kLayout, 6000), width);
      const std::string where =
          std::to_string(num_instances) + " instances, " + std::to_string(width) + " px";
      EXPECT_EQ(noted(dom, "overflow"), "0") << where;
      EXPECT_EQ(noted(dom, "outside"), "0") << where;
      EXPECT_EQ(noted(dom, "broken"), "0") << where;
      EXPECT_EQ(noted(dom, "bars"), std::to_string(num_instances)) << where;
      EXPECT_EQ(noted(dom, "rows"), std::to_string(num_instances)) << where;
      const int degree = std::min(num_instances, 3);
      EXPECT_EQ(noted(dom, "segments"), std::to_string(degree)) << where;
      EXPECT_EQ(noted(dom, "ribbons"), std::to_string(degree - 1)) << where;
      EXPECT_EQ(noted(dom, "lines"), "5") << where;
    }
  }
}

// Height of an instance's bar with its segment, relative to that of the next instance.
constexpr const char* kHeights = R"(({
  first: (() => {
    const left = i => +document.querySelectorAll('#stage .tank')[i].getAttribute('x');
    const height = i => [...document.querySelectorAll('#stage [data-bar=kv], #stage .segment')]
      .filter(one => Math.abs(one.getAttribute('x') - left(i)) < 1)
      .reduce((sum, one) => sum + +one.getAttribute('height'), 0);
    return (height(0) / height(1)).toFixed(2);
  })(),
}))";

TEST_F(SlowLivePage, FollowsTheSnapshots) {
  const std::string running =
      "document.querySelectorAll('#tiles .value span')[4].textContent";  // value, unit, value, ...
  const std::string dom = shown(
      stub(answers(4, "demo")),
      note("({early: " + running + "})", 300) +
          note("({late: " + running +
                   ", updates: document.body.dataset.updates"
                   ", live: document.getElementById('link').className"
                   ", request: document.querySelector('#request-table tbody tr').textContent})",
               6000) +
          note(kHeights, 6000),
      1400);
  EXPECT_EQ(noted(dom, "early"), "21");
  EXPECT_EQ(noted(dom, "late"), "24");
  EXPECT_GE(std::atoi(noted(dom, "updates").c_str()), 4);
  EXPECT_EQ(noted(dom, "live"), "link on");
  EXPECT_EQ(noted(dom, "request").rfind("#716,0404031decode", 0), 0U) << noted(dom, "request");
  // 900 of 1,000 blocks beside 700.
  EXPECT_NEAR(std::atof(noted(dom, "first").c_str()), 900.0 / 700.0, 0.02);
}

TEST_F(SlowLivePage, BarsMoveFromOneSnapshotToTheNext) {
  const std::string halfway = R"((() => {
    const scenes = [0, 3].map(i => sceneOf(JSON.parse(answers[i])));
    const half = between(scenes[0], scenes[1], 0.5);
    scenes[1].segments.clear();
    const gone = between(scenes[0], scenes[1], 1);
    return {kv: half.columns[1].kv.toFixed(2), rows: half.columns[1].rows,
      shrinking: between(scenes[0], scenes[1], 0.25).segments.get('7:1').size.toFixed(2),
      left: gone.segments.size};
  })())";
  const std::string dom = shown(stub(answers(4, "demo")), note(halfway, 3000), 1400);
  EXPECT_EQ(noted(dom, "kv"), "0.55") << "between 400 and 700 of 1,000 blocks";
  EXPECT_EQ(noted(dom, "rows"), "5");
  EXPECT_EQ(noted(dom, "shrinking"), "0.15");
  EXPECT_EQ(noted(dom, "left"), "0");
}

TEST_F(SlowLivePage, TheChatStreamsTextThatStaysText) {
  const std::string dom = shown(
      stub(answers(2, "<i id=slanted>demo</i>")),
      "<script>setTimeout(() => { document.getElementById('chat-text').value = '<u id=line>hi</u>';"
      "document.getElementById('chat-send').click(); }, 1500)</script>" +
          note(R"(({
        said: [...document.querySelectorAll('#chat-log .said')].map(one => one.textContent.replace(/[<>]/g, '!')).join('|'),
        elements: document.querySelectorAll('#bold, #slanted, #line').length,
        model: window.asked.model.length, messages: window.asked.messages.length,
        reason: document.querySelector('#chat-log .assistant .facts').textContent.includes('stop'),
        button: document.getElementById('chat-send').textContent,
      }))",
               5000),
      1400);
  EXPECT_EQ(noted(dom, "said"), "!u id=line!hi!/u!|!b id=bold!I am!/b!");
  EXPECT_EQ(noted(dom, "elements"), "0");
  EXPECT_EQ(noted(dom, "model"), std::to_string(std::string("<i id=slanted>demo</i>").size()));
  EXPECT_EQ(noted(dom, "messages"), "1");
  EXPECT_EQ(noted(dom, "reason"), "true");
  EXPECT_EQ(noted(dom, "button"), "Send");
}

TEST_F(SlowLivePage, AsksForAKeyWhenTheServerWantsOne) {
  const std::string dom = shown(
      stub(answers(2, "demo"), "right"),
      note("({asks: document.getElementById('key-dialog').open})", 800) +
          "<script>const give = key => { document.getElementById('key-text').value = key;"
          "document.querySelector('#key-form button').click(); };"
          "setTimeout(() => give('wrong'), 1000); setTimeout(() => give('right'), 2500);</script>" +
          note("({again: document.getElementById('key-dialog').open, "
               "words: document.getElementById('key-wrong').textContent})",
               2000) +
          note("({open: document.getElementById('key-dialog').open, "
               "live: document.getElementById('link').className})",
               6000),
      1400);
  EXPECT_EQ(noted(dom, "asks"), "true");
  EXPECT_EQ(noted(dom, "again"), "true");
  EXPECT_EQ(noted(dom, "words"), "This key is not accepted.");
  EXPECT_EQ(noted(dom, "open"), "false");
  EXPECT_EQ(noted(dom, "live"), "link on");
}

}  // namespace
}  // namespace nanocp::tests
