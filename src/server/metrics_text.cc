// The exposition: families of the library's data model, written by its serializer.
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <initializer_list>
#include <string_view>
#include <vector>

#include "server/metrics.h"
#include "server/process_usage.h"

namespace nanocp::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

using Labels = std::vector<ClientMetric::Label>;

// Families in the order in which they are begun. Every value carries the labels of the server.
class Families {
 public:
  explicit Families(Labels common) : common_(std::move(common)) {}

  Families& begin(const char* name, const char* help, MetricType type) {
    families_.push_back({name, help, type, {}});
    return *this;
  }
  Families& add(double value, const Labels& more = {}) {
    ClientMetric& metric = next(more);
    if (families_.back().type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    return *this;
  }
  void gauge(const char* name, const char* help, double value) {
    begin(name, help, MetricType::Gauge).add(value);
  }
  void counter(const char* name, const char* help, double value) {
    begin(name, help, MetricType::Counter).add(value);
  }
  void histogram(const char* name, const char* help, const Histogram& values) {
    begin(name, help, MetricType::Histogram);
    ClientMetric::Histogram& out = next({}).histogram;
    for (size_t i = 0; i < values.bounds().size(); ++i) {
      out.sample_count += values.count(i);
      out.bucket.push_back(
          {.cumulative_count = out.sample_count, .upper_bound = values.bounds()[i]});
    }
    out.sample_count += values.count(values.bounds().size());
    out.sample_sum = values.sum();
  }
  // Without the labels of the server: these have names that all programs share.
  void process(const char* name, const char* help, MetricType type, double value) {
    begin(name, help, type).add(value);
    families_.back().metric.back().label.clear();
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  ClientMetric& next(const Labels& more) {
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = common_;
    metric.label.insert(metric.label.end(), more.begin(), more.end());
    return metric;
  }

  const Labels common_;
  std::vector<MetricFamily> families_;
};

void add_load(Families& out, const ClusterSnapshot& snapshot) {
  out.gauge("vllm:num_requests_running", "Requests that have a place in steps.",
            static_cast<double>(snapshot.requests.num_running));
  out.gauge("vllm:num_requests_waiting", "Requests in the queue.",
            static_cast<double>(snapshot.requests.num_waiting));
  out.gauge("vllm:kv_cache_usage_perc", "Share of all KV blocks in use; 1 means all.",
            kv_cache_usage(snapshot));
  out.counter("vllm:num_preemptions_total", "Times that a running request had to give way.",
              static_cast<double>(snapshot.tokens.num_preemptions));
  out.counter("vllm:prompt_tokens_total", "Prompt tokens of requests whose first token came.",
              static_cast<double>(snapshot.tokens.num_prompt_tokens));
  out.counter("vllm:generation_tokens_total", "Tokens sampled.",
              static_cast<double>(snapshot.tokens.num_output_tokens));
}

void add_requests(Families& out, const RequestHistograms& requests) {
  out.histogram("vllm:e2e_request_latency_seconds", "From arrival to the end of the request.",
                requests.e2e);
  out.histogram("vllm:request_queue_time_seconds", "From arrival to the first step.",
                requests.queue);
  out.histogram("vllm:request_inference_time_seconds", "From the first step to the last token.",
                requests.inference);
  out.histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
                requests.prefill);
  out.histogram("vllm:request_decode_time_seconds", "From the first token to the last.",
                requests.decode);
  out.histogram("vllm:request_time_per_output_token_seconds",
                "Mean time between the tokens of a request.", requests.time_per_output_token);
  out.histogram("vllm:request_prompt_tokens", "Prompt tokens of a finished request.",
                requests.prompt_tokens);
  out.histogram("vllm:request_generation_tokens", "Output tokens of a finished request.",
                requests.generation_tokens);
  out.histogram("vllm:request_params_max_tokens", "Output limit of a finished request.",
                requests.max_tokens);
  out.histogram("nanocp:request_degree",
                "Instances that held the KV cache of a finished request at its end.",
                requests.degree);
}

void add_steps(Families& out, const StepHistograms& steps) {
  out.histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.",
                steps.first_token);
  out.histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
                steps.inter_token);
  out.histogram("vllm:time_per_output_token_seconds",
                "Between two tokens of a request, under its older name.", steps.inter_token);
  out.histogram("vllm:iteration_tokens_total",
                "Tokens that a step ran, of prompts and answers together.", steps.num_rows);
  out.histogram("nanocp:step_seconds", "Duration of a step.", steps.duration);
  out.histogram("nanocp:step_output_tokens", "Tokens sampled by a step.", steps.num_tokens);
}

// One gauge per instance.
template <typename Value>
void add_each(Families& out, const ClusterSnapshot& snapshot, const char* name, const char* help,
              Value value) {
  out.begin(name, help, MetricType::Gauge);
  for (size_t i = 0; i < snapshot.instances.size(); ++i) {
    out.add(static_cast<double>(value(snapshot.instances[i])),
            {{"instance_id", std::to_string(i)}});
  }
}

void add_instances(Families& out, const ClusterSnapshot& snapshot) {
  using One = InstanceSnapshot;
  add_each(out, snapshot, "nanocp:kv_blocks", "KV blocks of an instance.",
           [](const One& one) { return one.num_blocks; });
  add_each(out, snapshot, "nanocp:kv_blocks_used", "KV blocks in use.",
           [](const One& one) { return one.num_used_blocks; });
  add_each(out, snapshot, "nanocp:kv_tokens", "Tokens whose K/V an instance stores.",
           [](const One& one) { return one.num_kv_tokens; });
  add_each(out, snapshot, "nanocp:sequences", "Running sequences bound to an instance.",
           [](const One& one) { return one.num_sequences; });
  add_each(out, snapshot, "nanocp:rows", "Rows that an instance ran in the last step.",
           [](const One& one) { return one.num_rows; });
  add_each(out, snapshot, "nanocp:routed_queries",
           "Rows of an instance that went to other holders in the last step, once for each.",
           [](const One& one) { return one.num_routed_queries; });
  add_each(out, snapshot, "nanocp:attended_kv_tokens",
           "KV tokens that the attention of an instance read in a layer of the last step.",
           [](const One& one) { return one.num_attended_kv_tokens; });
}

void add_cluster(Families& out, const ClusterSnapshot& snapshot) {
  out.begin("nanocp:num_requests_by_degree",
            "Running requests, by the number of instances that hold their KV cache.",
            MetricType::Gauge);
  for (size_t degree = 1; degree < snapshot.num_by_degree.size(); ++degree) {
    out.add(static_cast<double>(snapshot.num_by_degree[degree]),
            {{"degree", std::to_string(degree)}});
  }
  out.gauge("nanocp:attention_slowest_over_mean",
            "Most KV tokens read by an instance in the last step over the mean; 1 is level.",
            snapshot.step.slowest_over_mean);
  out.counter("nanocp:steps_total", "Steps carried out.",
              static_cast<double>(snapshot.tokens.num_steps));
  out.counter("nanocp:requests_refused_total",
              "Requests refused since they can never fit, or since the queue was full.",
              static_cast<double>(snapshot.requests.num_refused));
}

void add_process(Families& out) {
  const ProcessUsage usage = read_process_usage();
  out.process("process_cpu_seconds_total", "User and system CPU time.", MetricType::Counter,
              usage.cpu_s);
  out.process("process_resident_memory_bytes", "Resident memory.", MetricType::Gauge,
              static_cast<double>(usage.resident_bytes));
  out.process("process_open_fds", "Open file descriptors.", MetricType::Gauge,
              static_cast<double>(usage.num_open_files));
}

}  // namespace

std::string Metrics::text(const ClusterSnapshot& snapshot) const {
  Families out({{"model_name", options_.model_name}, {"engine", "0"}});
  add_load(out, snapshot);
  // In the order of request::FinishReason, under vLLM's words.
  constexpr const char* kReasons[] = {"stop", "length", "abort", "error"};
  out.begin("vllm:request_success_total", "Requests that ended, by reason.", MetricType::Counter);
  for (size_t i = 0; i < num_ended_.size(); ++i) {
    out.add(static_cast<double>(num_ended_[i].load(std::memory_order_relaxed)),
            {{"finished_reason", kReasons[i]}});
  }
  add_steps(out, steps_);
  add_requests(out, requests_);
  out.begin("vllm:cache_config_info", "The KV cache, as labels.", MetricType::Gauge);
  int64_t num_blocks = 0;
  for (const InstanceSnapshot& instance : snapshot.instances) num_blocks += instance.num_blocks;
  out.add(1.0, {{"block_size", std::to_string(snapshot.block_size)},
                {"num_gpu_blocks", std::to_string(num_blocks)}});
  out.begin("nanocp:build_info", "Version, policy and instances, as labels.", MetricType::Gauge);
  out.add(1.0, {{"version", options_.version},
                {"policy", snapshot.policy},
                {"instances", std::to_string(snapshot.instances.size())}});
  add_cluster(out, snapshot);
  add_instances(out, snapshot);
  if (steps_.slowest_over_mean.total() > 0) {
    out.histogram("nanocp:step_slowest_over_mean",
                  "Busiest instance of a step over the mean, by time not spent waiting.",
                  steps_.slowest_over_mean);
    out.begin("nanocp:step_phase_seconds_total",
              "Time that steps spent on a phase, mean over the instances.", MetricType::Counter);
    for (size_t i = 0; i < phase_s_.size(); ++i) {
      out.add(phase_s_[i].load(std::memory_order_relaxed),
              {{"phase", to_string(static_cast<StepPhase>(i))}});
    }
  }
  out.begin("nanocp:http_responses_total", "Answered HTTP requests, by route and status.",
            MetricType::Counter);
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : responses_) {
      out.add(static_cast<double>(count),
              {{"path", key.first}, {"status", std::to_string(key.second)}});
    }
  }
  add_process(out);
  return out.text();
}

}  // namespace nanocp::server
