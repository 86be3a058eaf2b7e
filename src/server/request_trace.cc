#include "server/request_trace.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace nanocp::server {
namespace {

using nlohmann::json;

constexpr int kEngineProcess = 0;
constexpr int kRequestProcess = 1;

json process_name(int process, const char* name) {
  return {{"ph", "M"}, {"name", "process_name"}, {"pid", process}, {"args", {{"name", name}}}};
}

// Begin and end of a span on the row of a request; nothing when it did not happen.
void add_span(json& events, const SequenceRecord& sequence, const char* name, int64_t from_us,
              int64_t to_us, json args = json::object()) {
  if (from_us < 0 || to_us < from_us) return;
  json event = {{"ph", "b"}, {"cat", "request"},        {"name", name},  {"pid", kRequestProcess},
                {"tid", 0},  {"id", sequence.sequence}, {"ts", from_us}, {"args", std::move(args)}};
  events.push_back(event);
  event["ph"] = "e";
  event["ts"] = to_us;
  event.erase("args");
  events.push_back(std::move(event));
}

json request_args(const SequenceRecord& sequence) {
  json holders = json::object();
  for (const auto& [holder, num_tokens] : sequence.summary.kv_tokens) {
    holders[std::to_string(holder)] = num_tokens;
  }
  return {{"request_id", sequence.request_id},
          {"index", sequence.index},
          {"prompt_tokens", sequence.num_prompt_tokens},
          {"output_tokens", sequence.num_output_tokens},
          {"finish_reason", request::to_string(sequence.finish_reason)},
          {"binding", sequence.summary.binding},
          {"kv_tokens", std::move(holders)},
          {"preemptions", sequence.summary.num_preemptions}};
}

// A time that did not happen stays -1.
int64_t since(int64_t start_us, int64_t time_us) {
  return time_us < 0 ? -1 : time_us - start_us;
}

void add_request(json& events, const SequenceRecord& sequence, int64_t start_us) {
  const int64_t arrival_us = since(start_us, sequence.arrival_us);
  const int64_t scheduled_us = since(start_us, sequence.scheduled_us);
  const int64_t first_us = since(start_us, sequence.first_token_us);
  const int64_t end_us = since(start_us, sequence.end_us);
  add_span(events, sequence, "request", arrival_us, end_us, request_args(sequence));
  add_span(events, sequence, "queue", arrival_us, scheduled_us >= 0 ? scheduled_us : end_us);
  if (scheduled_us < 0) return;
  add_span(events, sequence, "prefill", scheduled_us, first_us >= 0 ? first_us : end_us);
  if (first_us >= 0) add_span(events, sequence, "decode", first_us, end_us);
}

}  // namespace

void RequestTrace::on_step(const StepRecord& step) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    num_missed_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  steps_.push({step.start_us, step.end_us, step.num_tokens});
}

void RequestTrace::on_end(const SequenceRecord& sequence) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    num_missed_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  sequences_.push(sequence);
}

uint64_t RequestTrace::num_missed() const {
  return num_missed_.load(std::memory_order_relaxed);
}

std::string RequestTrace::chrome_trace() const {
  std::vector<SequenceRecord> sequences;
  std::vector<Step> steps;
  {
    const std::lock_guard lock(mutex_);
    sequences = sequences_.values();
    steps = steps_.values();
  }
  json events = json::array();
  events.push_back(process_name(kEngineProcess, "engine"));
  events.push_back(process_name(kRequestProcess, "requests"));
  for (const Step& step : steps) {
    events.push_back({{"ph", "X"},
                      {"name", "step"},
                      {"pid", kEngineProcess},
                      {"tid", 0},
                      {"ts", step.start_us - start_us_},
                      {"dur", step.end_us - step.start_us},
                      {"args", {{"tokens", step.num_tokens}}}});
  }
  for (const SequenceRecord& sequence : sequences) add_request(events, sequence, start_us_);
  const json document = {{"traceEvents", std::move(events)},
                         {"otherData", {{"missed_records", num_missed()}}}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace nanocp::server
