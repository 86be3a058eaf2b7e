#include "apps/bench_serve_page.h"

#include <set>
#include <vector>

#include "apps/bench_serve_figures.h"
#include "apps/bench_serve_report.h"
#include "apps/report_page.h"
#include "chart/svg.h"

namespace nanocp::apps {
namespace {

using chart::append;
using chart::escaped;
using chart::short_number;
using nlohmann::json;

std::string text_of(const json& document, const char* name) {
  return document[name].get<std::string>();
}

std::string load_line(const json& document) {
  std::string line = text_of(document, "prompts") + ", lengths " + text_of(document, "workload");
  const bool is_open = !document["runs"].empty() && document["runs"][0].contains("rate_per_s");
  if (is_open) line.append(", ").append(text_of(document, "arrivals")).append(" arrivals");
  return line.append(", ").append(text_of(document, "started_at"));
}

std::string objectives_line(const json& document) {
  const json& slo = document["slo"];
  std::string line = "A good request keeps";
  bool is_first = true;
  for (const auto& [name, label] :
       {std::pair("ttft_us", "TTFT"), std::pair("tpot_us", "TPOT"), std::pair("e2e_us", "e2e")}) {
    if (!slo[name].is_number()) continue;
    append(line, "%s %s of %s ms", is_first ? "" : " and", label,
           short_number(slo[name].get<double>() / 1e3).c_str());
    is_first = false;
  }
  if (is_first) return "No objectives: a request that finishes is good";
  append(line, "; %s %% of requests shall be good",
         short_number(100.0 * slo["percentile"].get<double>()).c_str());
  return line;
}

std::string run_name(const json& run, bool has_seeds) {
  std::string name = serve_level(run);
  if (has_seeds) name += ", seed " + std::to_string(run["seed"].get<uint64_t>());
  return name;
}

std::string run_table(const json& document, bool has_seeds) {
  std::string out =
      "<div class=\"scroll\"><table class=\"runs\"><thead><tr><th>load</th><th>finished</th>"
      "<th>errors</th><th>req/s</th><th>tokens/s</th><th>TTFT P50, ms</th><th>P99</th>"
      "<th>TPOT P50, ms</th><th>P99</th><th>ITL P99</th><th>e2e P50, s</th><th>good, %</th>"
      "<th>good/s</th></tr></thead><tbody>";
  size_t index = 0;
  for (const json& run : document["runs"]) {
    const json& all = run["all"];
    const auto ms = [&](const char* what, const char* which) {
      return all[what][which].get<double>() / 1e3;
    };
    const auto num_finished = all["num_finished"].get<int64_t>();
    append(out, "<tr><th><a href=\"#run-%zu\">%s</a></th><td>%lld</td><td>%lld</td>", index++,
           escaped(run_name(run, has_seeds)).c_str(), static_cast<long long>(num_finished),
           static_cast<long long>(all["num_requests"].get<int64_t>() - num_finished));
    append(out, "<td>%.2f</td><td>%.1f</td><td>%.1f</td><td>%.1f</td><td>%.2f</td><td>%.2f</td>",
           run["requests_per_s"].get<double>(), run["output_tokens_per_s"].get<double>(),
           ms("ttft_us", "p50"), ms("ttft_us", "p99"), ms("tpot_us", "p50"), ms("tpot_us", "p99"));
    append(out, "<td>%.1f</td><td>%.2f</td><td class=\"%s\">%.1f</td><td>%.2f</td></tr>",
           ms("itl_us", "p99"), ms("e2e_us", "p50") / 1e3,
           run["meets_objectives"].get<bool>() ? "good" : "bad",
           100.0 * all["good_share"].get<double>(), run["goodput_per_s"].get<double>());
  }
  return out + "</tbody></table></div>";
}

std::string error_list(const json& run) {
  if (run["errors"].empty()) return "";
  std::string out = "<ul class=\"findings\">";
  for (const auto& [kind, error] : run["errors"].items()) {
    append(out, "<li><b class=\"bad\">%lld &times; %s</b> %s</li>",
           static_cast<long long>(error["count"].get<int64_t>()), escaped(kind).c_str(),
           escaped(error["example"].get<std::string>()).c_str());
  }
  return out + "</ul>";
}

std::string client_line(const json& run) {
  const json& client = run["client"];
  std::string out;
  append(out,
         "<p class=\"%s\">%sThe client started requests %.2f ms late and its loop ran %.2f ms late "
         "(P99).</p>",
         client["is_on_time"].get<bool>() ? "lead" : "error",
         client["is_on_time"].get<bool>() ? "" : "Unreliable: the client did not keep up. ",
         client["start_lag_us"]["p99"].get<double>() / 1e3,
         client["loop_lag_us"]["p99"].get<double>() / 1e3);
  return out;
}

std::string run_section(const json& document, size_t index, bool has_seeds) {
  const json& run = document["runs"][index];
  std::string out;
  append(out,
         "<section class=\"run\" id=\"run-%zu\" data-run=\"%zu\"><h2>%s</h2><p class=\"lead\">",
         index, index, escaped(run_name(run, has_seeds)).c_str());
  append(out, "%s measured requests in %s s, %s at a time on average; ",
         short_number(run["all"]["num_requests"]).c_str(), short_number(run["window_s"]).c_str(),
         short_number(run["mean_running"]).c_str());
  append(out, "<span class=\"%s\">objectives %s</span>%s.</p>",
         run["meets_objectives"] ? "good" : "bad", run["meets_objectives"] ? "met" : "missed",
         run["is_interrupted"] ? "; interrupted" : "");
  out += client_line(run);
  out += error_list(run);
  out += figures_html(serve_run_figures(document, run));
  return out + "</section>";
}

size_t num_distinct(const json& document, const char* name) {
  std::set<double> values;
  for (const json& run : document["runs"]) {
    if (run.contains(name)) values.insert(run[name].get<double>());
  }
  return values.size();
}

}  // namespace

std::string serve_page(const json& document) {
  const std::string title = text_of(document, "model") + " at " + text_of(document, "base_url");
  const bool has_seeds = num_distinct(document, "seed") > 1;
  const bool has_levels =
      num_distinct(document, "rate_per_s") > 1 || num_distinct(document, "concurrency") > 1;
  std::string body = "<header><p class=\"kicker\">nanocp bench serve</p>";
  append(body, "<h1>%s</h1><p class=\"lead\">%s.<br>%s.</p></header>", escaped(title).c_str(),
         escaped(load_line(document)).c_str(), escaped(objectives_line(document)).c_str());
  if (has_levels) body += figures_html(serve_overview_figures(document));
  body += run_table(document, has_seeds);
  body += "<nav id=\"picker\" aria-label=\"run\"></nav>";
  json data = document;
  for (size_t i = 0; i < document["runs"].size(); ++i) {
    body += run_section(document, i, has_seeds);
    data["runs"][i].erase("requests");  // drawn already
  }
  return report_page({.title = title, .body = body, .data = std::move(data)});
}

}  // namespace nanocp::apps
