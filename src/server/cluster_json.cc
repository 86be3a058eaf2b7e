#include "server/cluster_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "kvcache/kv_placement.h"

namespace nanocp::server {
namespace {

using nlohmann::json;

double rounded(double value, double per_unit) {
  return std::round(value * per_unit) / per_unit;
}

json instance_json(const InstanceSnapshot& instance) {
  return {{"kv_blocks", instance.num_blocks},           {"kv_used", instance.num_used_blocks},
          {"kv_tokens", instance.num_kv_tokens},        {"rows", instance.num_rows},
          {"sequences", instance.num_sequences},        {"routed", instance.num_routed_queries},
          {"attended", instance.num_attended_kv_tokens}};
}

json request_json(const LongRequest& request, int32_t block_size, int64_t now_us) {
  json shards = json::array();
  for (const auto& [holder, num_tokens] : request.kv_tokens) {
    shards.push_back({holder, kvcache::blocks_for(num_tokens, std::max(1, block_size))});
  }
  const double age_s = static_cast<double>(now_us - request.arrival_us) * 1e-6;
  return {{"id", request.sequence},
          {"prompt", request.num_prompt_tokens},
          {"tokens", request.num_prompt_tokens + request.num_output_tokens},
          {"binding", request.binding},
          {"state", request.num_output_tokens > 0 ? "decode" : "prefill"},
          {"age_s", rounded(std::max(0.0, age_s), 10.0)},
          {"shards", std::move(shards)}};
}

json row_json(const HistoryRow& row, double start_s) {
  // Rounded up, so that it is not sent again to who asks for what is later.
  const double time_s = std::ceil((row.time_s - start_s) * 1e3) * 1e-3;
  return {time_s,
          row.num_output_tokens,
          row.num_prompt_tokens,
          rounded(row.inter_token_s, 1e6),
          row.num_inter_token,
          row.num_running,
          row.num_waiting,
          rounded(row.kv_min, 1e4),
          rounded(row.kv_mean, 1e4),
          rounded(row.kv_max, 1e4)};
}

// The names of a row's values, in their order.
json history_fields() {
  return {"t",       "generated", "prompt", "itl_s",   "itl_count",
          "running", "waiting",   "kv_min", "kv_mean", "kv_max"};
}

}  // namespace

std::string cluster_json(const ClusterInfo& info, const ClusterState& state) {
  const ClusterSnapshot& snapshot = state.snapshot;
  const double start_s = static_cast<double>(info.start_us) * 1e-6;
  json instances = json::array();
  for (const InstanceSnapshot& instance : snapshot.instances) {
    instances.push_back(instance_json(instance));
  }
  json requests = json::array();
  for (const LongRequest& request : snapshot.long_requests) {
    requests.push_back(request_json(request, snapshot.block_size, state.now_us));
  }
  json rows = json::array();
  for (const HistoryRow& row : state.history) rows.push_back(row_json(row, start_s));
  const RequestCounters& counters = snapshot.requests;
  const json document = {
      {"model", info.model},
      {"policy", snapshot.policy},
      {"device", info.device},
      {"version", info.version},
      {"is_alive", state.is_alive},
      {"uptime_s", rounded(static_cast<double>(state.now_us - info.start_us) * 1e-6, 1e3)},
      {"max_model_len", info.max_model_len},
      {"block_size", snapshot.block_size},
      {"num_running", counters.num_running},
      {"num_waiting", counters.num_waiting},
      {"num_open", counters.num_running + counters.num_waiting},
      {"straggler_ratio", rounded(state.slowest_over_mean, 1e3)},
      {"attention_ratio", rounded(snapshot.step.slowest_over_mean, 1e3)},
      {"step_ms", rounded(snapshot.step.mean_ms, 1e3)},
      {"totals",
       {{"generated", snapshot.tokens.num_output_tokens},
        {"prompt", snapshot.tokens.num_prompt_tokens},
        {"finished", counters.num_finished},
        {"cancelled", counters.num_cancelled},
        {"refused", counters.num_refused},
        {"preemptions", snapshot.tokens.num_preemptions},
        {"steps", snapshot.tokens.num_steps}}},
      {"degrees", snapshot.num_by_degree},
      {"instances", std::move(instances)},
      {"requests", std::move(requests)},
      {"history", {{"fields", history_fields()}, {"rows", std::move(rows)}}}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

double since_of_query(std::string_view query) {
  constexpr std::string_view kName = "since=";
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view field = query.substr(0, end);
    if (field.starts_with(kName)) {
      double value = -1.0;
      const char* last = field.data() + field.size();
      const auto [stop, error] = std::from_chars(field.data() + kName.size(), last, value);
      return error == std::errc() && stop == last && std::isfinite(value) ? value : -1.0;
    }
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  return -1.0;
}

}  // namespace nanocp::server
