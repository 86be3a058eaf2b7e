// History, /cluster, the trace of requests and the access log.
#include "server/observability.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace nanocp::server {
namespace {

using nlohmann::json;

ClusterSnapshot snapshot_at(int64_t time_us, int64_t num_output_tokens, int64_t num_running) {
  ClusterSnapshot snapshot;
  snapshot.time_us = time_us;
  snapshot.block_size = 16;
  snapshot.policy = "dcp";
  snapshot.instances = {{.num_blocks = 10, .num_used_blocks = 2},
                        {.num_blocks = 10, .num_used_blocks = 6}};
  snapshot.tokens.num_output_tokens = num_output_tokens;
  snapshot.requests.num_running = num_running;
  return snapshot;
}

class ObservabilityTest : public ::testing::Test {
 protected:
  json cluster(const ClusterSnapshot& snapshot, std::string_view query = "") const {
    return json::parse(observability_.cluster(snapshot, true, query));
  }
  // Value of a field in every row of the history.
  static std::vector<double> column(const json& document, const std::string& field) {
    const json& history = document["history"];
    const auto fields = history["fields"].get<std::vector<std::string>>();
    const auto at =
        static_cast<size_t>(std::find(fields.begin(), fields.end(), field) - fields.begin());
    std::vector<double> values;
    for (const json& row : history["rows"]) values.push_back(row.at(at).get<double>());
    return values;
  }

  ManualClock clock_;
  Observability observability_{
      {.model = "demo", .device = "2 CPU instances", .version = "1.2", .max_model_len = 4096},
      clock_,
      nullptr};
};

TEST_F(ObservabilityTest, ClusterShowsInstancesAndLongRequests) {
  clock_.advance_us(3'000'000);
  ClusterSnapshot snapshot = snapshot_at(3'000'000, 12, 2);
  snapshot.long_requests = {{.sequence = 7,
                             .binding = 1,
                             .num_prompt_tokens = 100,
                             .num_output_tokens = 4,
                             .num_kv_tokens = 103,
                             .arrival_us = 1'000'000,
                             .kv_tokens = {{0, 64}, {1, 39}}}};
  const json document = cluster(snapshot);
  EXPECT_EQ(document["model"], "demo");
  EXPECT_EQ(document["uptime_s"], 3.0);
  EXPECT_EQ(document["instances"][1]["kv_used"], 6);
  const json& request = document["requests"][0];
  EXPECT_EQ(request["id"], 7);
  EXPECT_EQ(request["tokens"], 104);
  EXPECT_EQ(request["age_s"], 2.0);
  EXPECT_EQ(request["state"], "decode");
  EXPECT_EQ(request["shards"], json::parse("[[0,4],[1,3]]"));
}

TEST_F(ObservabilityTest, HistoryHasARowASecondAndSendsEachOnce) {
  for (int i = 1; i <= 50; ++i) {
    clock_.advance_us(200'000);
    observability_.on_snapshot(snapshot_at(clock_.now_us(), 10 * i, 3));
  }
  const ClusterSnapshot last = snapshot_at(clock_.now_us(), 500, 3);
  const json all = cluster(last);
  const auto times = column(all, "t");
  ASSERT_EQ(times.size(), 10U);
  for (size_t i = 1; i < times.size(); ++i) EXPECT_NEAR(times[i] - times[i - 1], 1.0, 1e-9);
  EXPECT_EQ(column(all, "kv_min")[0], 0.2);
  EXPECT_EQ(column(all, "kv_mean")[0], 0.4);
  EXPECT_EQ(column(all, "kv_max")[0], 0.6);
  EXPECT_TRUE(column(cluster(last, "since=" + std::to_string(times.back())), "t").empty());
  EXPECT_EQ(column(cluster(last, "since=" + std::to_string(times[7])), "t").size(), 2U);
  EXPECT_EQ(column(cluster(last, "since=nonsense"), "t").size(), 10U);
}

TEST_F(ObservabilityTest, HistoryIsBounded) {
  for (int i = 1; i <= 1000; ++i) {
    clock_.advance_us(1'000'000);
    observability_.on_snapshot(snapshot_at(clock_.now_us(), i, 3));
  }
  EXPECT_EQ(column(cluster(snapshot_at(clock_.now_us(), 1000, 3)), "t").size(),
            ClusterHistory::kRowsMax);
}

TEST_F(ObservabilityTest, WorkAfterAPauseIsNotSpreadOverThePause) {
  clock_.advance_us(1'000'000);
  observability_.on_snapshot(snapshot_at(clock_.now_us(), 100, 1));
  clock_.advance_us(100'000);
  observability_.on_snapshot(snapshot_at(clock_.now_us(), 110, 0));  // the end of the work
  clock_.advance_us(60'000'000);
  observability_.on_snapshot(snapshot_at(clock_.now_us(), 200, 1));
  const json document = cluster(snapshot_at(clock_.now_us(), 200, 1));
  const auto times = column(document, "t");
  const auto tokens = column(document, "generated");
  ASSERT_EQ(tokens, (std::vector<double>{100, 110, 110, 200}));
  EXPECT_NEAR(times[3] - times[2], 1.0, 1e-9);
}

TEST_F(ObservabilityTest, TimeGoesOnWhileNothingHappens) {
  clock_.advance_us(1'000'000);
  const ClusterSnapshot snapshot = snapshot_at(clock_.now_us(), 100, 0);
  observability_.on_snapshot(snapshot);
  clock_.advance_us(5'000'000);
  EXPECT_EQ(column(cluster(snapshot), "t"), (std::vector<double>{1.0, 6.0}));
}

TEST_F(ObservabilityTest, AQueryOfAnyFormIsRead) {
  EXPECT_EQ(since_of_query("since=2.5"), 2.5);
  EXPECT_EQ(since_of_query("a=1&since=3&b"), 3.0);
  for (const char* query :
       {"", "since=", "since=1x", "since=nan", "since=inf", "&&&", "x=since=1"}) {
    EXPECT_EQ(since_of_query(query), -1.0) << query;
  }
}

SequenceRecord record_of(SequenceId id) {
  SequenceRecord record;
  record.sequence = id;
  record.request_id = "req-\xff";  // no UTF-8
  record.arrival_us = 100;
  record.scheduled_us = 200;
  record.first_token_us = 300;
  record.last_token_us = 400;
  record.end_us = 400;
  record.finish_reason = request::FinishReason::kStop;
  record.summary.kv_tokens = {{0, 5}, {3, 6}};
  return record;
}

// Spans of a request in a trace: name to begin and end.
std::map<std::string, std::pair<int64_t, int64_t>> spans_of(const json& trace, SequenceId id) {
  std::map<std::string, std::pair<int64_t, int64_t>> spans;
  for (const json& event : trace["traceEvents"]) {
    if (event.value("id", SequenceId{0}) != id) continue;
    auto& span = spans[event["name"]];
    (event["ph"] == "b" ? span.first : span.second) = event["ts"];
  }
  return spans;
}

TEST(GenerationNotes, SequencesOfARequestAreOneNote) {
  GenerationNotes notes;
  SequenceRecord record = record_of(1);
  record.request_id = "a";
  record.num_prompt_tokens = 10;
  record.num_output_tokens = 3;
  notes.add(record);
  record.num_output_tokens = 4;
  record.first_token_us = 250;
  record.finish_reason = request::FinishReason::kLength;
  record.summary.kv_tokens = {{0, 5}};
  notes.add(record);
  const auto note = notes.take("a");
  ASSERT_TRUE(note.has_value());
  EXPECT_EQ(note->num_prompt_tokens, 20);
  EXPECT_EQ(note->num_output_tokens, 7);
  EXPECT_DOUBLE_EQ(note->first_token_s, 150e-6);
  EXPECT_EQ(note->degree, 2);
  EXPECT_EQ(note->finish_reason, request::FinishReason::kLength);
  EXPECT_FALSE(notes.take("a").has_value());
}

TEST(GenerationNotes, ThoseThatNobodyTakesAreForgotten) {
  GenerationNotes notes;
  SequenceRecord record = record_of(1);
  for (size_t i = 0; i <= GenerationNotes::kNotesMax; ++i) {
    record.request_id = std::to_string(i);
    notes.add(record);
  }
  EXPECT_FALSE(notes.take("0").has_value());
  EXPECT_TRUE(notes.take("1").has_value());
}

TEST(RequestTrace, HasTheSpansOfARequestsLife) {
  RequestTrace trace(50);
  trace.on_end(record_of(9));
  trace.on_step({.start_us = 150, .end_us = 250, .num_tokens = 2});
  const json document = json::parse(trace.chrome_trace());
  using Spans = std::map<std::string, std::pair<int64_t, int64_t>>;
  EXPECT_EQ(spans_of(document, 9), (Spans{{"request", {50, 350}},
                                          {"queue", {50, 150}},
                                          {"prefill", {150, 250}},
                                          {"decode", {250, 350}}}));
  const json& step = document["traceEvents"][2];
  EXPECT_EQ(step["ts"], 100);
  EXPECT_EQ(step["dur"], 100);
}

TEST(RequestTrace, ARequestThatNeverRanOnlyQueued) {
  RequestTrace trace(0);
  SequenceRecord record = record_of(9);
  record.scheduled_us = record.first_token_us = record.last_token_us = -1;
  trace.on_end(record);
  const auto spans = spans_of(json::parse(trace.chrome_trace()), 9);
  EXPECT_EQ(spans.size(), 2U);
  EXPECT_EQ(spans.at("queue"), (std::pair<int64_t, int64_t>(100, 400)));
}

TEST(Ring, KeepsTheLastOnesOldestFirst) {
  Ring<std::string> ring(3);
  for (const char* value : {"a", "b"}) ring.push(value);
  EXPECT_EQ(ring.values(), (std::vector<std::string>{"a", "b"}));
  for (const char* value : {"c", "d", "e", "f", "g"}) ring.push(value);
  EXPECT_EQ(ring.values(), (std::vector<std::string>{"e", "f", "g"}));
}

TEST(RequestTrace, KeepsTheLastOnes) {
  RequestTrace trace(0, 20);
  for (SequenceId id = 1; id <= 30; ++id) trace.on_end(record_of(id));
  const json document = json::parse(trace.chrome_trace());
  EXPECT_TRUE(spans_of(document, 10).empty());
  EXPECT_EQ(spans_of(document, 11).size(), 4U);
  EXPECT_EQ(document["traceEvents"].size(), 2U + 8U * 20U);
}

}  // namespace
}  // namespace nanocp::server
