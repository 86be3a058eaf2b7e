#include "apps/serve_summary.h"

#include <array>
#include <cstdio>

#include "apps/grouped_number.h"
#include "model/memory_estimate.h"

namespace nanocp::apps {
namespace {

std::string bytes_text(int64_t bytes) {
  constexpr std::array<const char*, 4> kUnits = {"B", "KiB", "MiB", "GiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string parameters_text(int64_t count) {
  char text[32];
  if (count >= 1'000'000'000) {
    std::snprintf(text, sizeof(text), "%.1f B", static_cast<double>(count) * 1e-9);
  } else {
    std::snprintf(text, sizeof(text), "%.1f M", static_cast<double>(count) * 1e-6);
  }
  return text;
}

void print_line(const char* name, const std::string& text) {
  std::printf("  %-10s %s\n", name, text.c_str());
}

std::string model_text(const ServeSummary& summary) {
  const model::ParameterCount parameters = model::count_parameters(summary.spec);
  std::string names;
  for (const std::string& name : summary.context.served_names) {
    names += (names.empty() ? "" : ", ") + name;
  }
  return names + " (" + summary.spec.architecture + ", " + parameters_text(parameters.total) +
         " parameters, " + parameters_text(parameters.active) + " active" +
         (summary.context.chat_template == nullptr ? ", no chat template" : "") + ")";
}

std::string instances_text(const ServeSummary& summary) {
  const int num_instances = summary.options.engine.num_instances;
  const model::WeightBytes weights = model::count_weight_bytes(summary.spec);
  return std::to_string(num_instances) + " on " + summary.session.device_name() + ", weights of " +
         bytes_text(weights.per_instance(num_instances)) + " each, up to " +
         std::to_string(max_num_seqs(summary.options.engine)) + " running requests each";
}

std::string kv_text(const ServeSummary& summary) {
  const EngineOptions& options = summary.options.engine;
  const int64_t tokens = summary.session.num_kv_blocks() * block_size(options);
  const int64_t bytes = tokens * model::kv_bytes_per_token(summary.spec, kv_format(options));
  return grouped(tokens * options.num_instances) + " tokens, " + grouped(tokens) + " on each (" +
         bytes_text(bytes) + ")";
}

std::string policy_text(const EngineOptions& options) {
  std::string name = policy_name(options);
  if (options.max_cp_degree == 0) return name;
  return name + ", a request on " + std::to_string(options.max_cp_degree) + " instances at most";
}

bool is_exposed(const std::string& host) {
  return host != "localhost" && host != "::1" && !host.starts_with("127.");
}

}  // namespace

std::string server_url(const http::Server& http_server) {
  std::string host = http_server.host();
  if (host == "0.0.0.0" || host == "::") host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return "http://" + host + ":" + std::to_string(http_server.port());
}

void print_summary(const ServeSummary& summary) {
  std::printf("NanoCP " NANOCP_VERSION "\n");
  print_line("model", model_text(summary));
  print_line("instances", instances_text(summary));
  print_line("KV cache", kv_text(summary));
  print_line("longest", grouped(summary.context.max_model_len) + " tokens, prompt and answer");
  print_line("policy", policy_text(summary.options.engine));
  if (summary.http_server.max_connections() < summary.options.max_connections) {
    print_line("note", "room for " + grouped(summary.http_server.max_connections()) +
                           " connections only: raise the limit of open files (ulimit -n)");
  }
  if (is_exposed(summary.options.host) && !summary.has_api_keys) {
    print_line("note",
               "others can reach " + summary.options.host + " and need no key: see --api-key");
  }
  print_line("API", server_url(summary.http_server) + "/v1");
  print_line("live page", server_url(summary.http_server) + "/");
  std::fflush(stdout);
}

}  // namespace nanocp::apps
