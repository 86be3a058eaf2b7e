#include "apps/simulate_page.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <vector>

#include "apps/report_page.h"
#include "apps/simulate_figures.h"
#include "chart/chart.h"
#include "chart/svg.h"

namespace nanocp::apps {
namespace {

using chart::append;
using chart::escaped;
using chart::short_number;
using nlohmann::json;

std::string title_of(const json& document) {
  std::string title;
  append(title, "%s on %d \u00D7 %s", document["model"].get<std::string>().c_str(),
         document["num_instances"].get<int>(), document["hardware"].get<std::string>().c_str());
  return title;
}

std::string load_line(const json& document) {
  std::string line = document["arrivals"];
  if (!line.empty()) line[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(line[0])));
  append(line, " arrivals for %s s of %s", short_number(document["duration_s"]).c_str(),
         document["workload"].get<std::string>().c_str());
  return line;
}

std::string objectives_line(const json& document) {
  const json& slo = document["slo"];
  std::string line;
  append(
      line,
      "%s %% of requests must keep a TPOT of %s ms, over all and in each class of prompts, and a "
      "queueing delay of %s s",
      short_number(100.0 * slo["percentile"].get<double>()).c_str(),
      short_number(slo["tpot_us"].get<double>() / 1e3).c_str(),
      short_number(slo["queue_us"].get<double>() / 1e6).c_str());
  return line;
}

// Runs of a policy at a rate, and how many of them keep the objectives.
struct Outcome {
  int num_runs = 0;
  int num_met = 0;
  size_t first_run = 0;
  double p99_ms = 0.0;  // the largest
  std::string missed;   // an objective that one of them misses
};

Outcome outcome_at(const json& document, const std::string& policy, double rate) {
  Outcome outcome;
  const json& runs = document["runs"];
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i]["policy"] != policy || runs[i]["rate_per_s"] != rate) continue;
    if (outcome.num_runs++ == 0) outcome.first_run = i;
    if (runs[i]["meets_objectives"]) {
      ++outcome.num_met;
    } else {
      outcome.missed = runs[i]["missed"];
    }
    outcome.p99_ms = std::max(outcome.p99_ms, runs[i]["all"]["tpot_us"]["p99"].get<double>() / 1e3);
  }
  return outcome;
}

// "dcp keeps the objectives up to 40 requests per second": of the rates that were simulated, and
// only below the first that misses.
std::string findings(const json& document) {
  std::vector<double> rates = rates_of(document);
  std::sort(rates.begin(), rates.end());
  std::string out = "<ul class=\"findings\">";
  for (const std::string& policy : policies_of(document)) {
    double kept_to = 0.0;
    double misses_at = 0.0;
    std::string missed;
    for (const double rate : rates) {
      const Outcome outcome = outcome_at(document, policy, rate);
      if (outcome.num_runs == 0) continue;
      if (outcome.num_met < outcome.num_runs) {
        misses_at = rate;
        missed = outcome.missed;
        break;
      }
      kept_to = rate;
    }
    append(out, "<li><b>%s</b> ", escaped(policy).c_str());
    if (kept_to > 0.0) {
      append(out, "keeps the objectives up to <b class=\"good\">%s</b> requests/s",
             short_number(kept_to).c_str());
      if (misses_at > 0.0) {
        append(out, ", misses at %s", short_number(misses_at).c_str());
      } else if (rates.size() > 1) {
        out += ", the highest simulated";
      }
    } else {
      append(out, "misses the objectives at <b class=\"bad\">%s</b> requests/s",
             short_number(misses_at).c_str());
    }
    if (!missed.empty()) append(out, ": %s", escaped(missed).c_str());
    out += "</li>";
  }
  return out + "</ul>";
}

// "dcp keeps the objectives up to 43.1 requests/s (42.8 to 43.4)", of a search.
std::string found_rates(const json& document) {
  std::string out = "<ul class=\"findings\">";
  for (const std::string& policy : policies_of(document)) {
    std::vector<double> rates;
    std::string limit;
    for (const json& found : document["rates"]) {
      if (found["policy"] != policy) continue;
      rates.push_back(found["rate_per_s"]);
      limit = found["limit"];
    }
    const auto [low, high] = std::minmax_element(rates.begin(), rates.end());
    double sum = 0.0;
    for (const double rate : rates) sum += rate;
    append(out, "<li><b>%s</b> keeps the objectives up to <b class=\"good\">%s</b> requests/s",
           escaped(policy).c_str(), short_number(sum / static_cast<double>(rates.size())).c_str());
    if (rates.size() > 1) {
      append(out, " (%s to %s over seeds)", short_number(*low).c_str(),
             short_number(*high).c_str());
    }
    if (!limit.empty()) append(out, "; the next rate misses: %s", escaped(limit).c_str());
    out += "</li>";
  }
  return out + "</ul>";
}

// Policies down, rates across; a cell leads to its run.
std::string matrix(const json& document) {
  std::vector<double> rates = rates_of(document);
  std::sort(rates.begin(), rates.end());
  std::string out =
      "<div class=\"scroll\"><table class=\"matrix\"><caption>P99 TPOT in ms at each request rate; "
      "choose a cell to see its run</caption><thead><tr><th>requests/s</th>";
  for (const double rate : rates) append(out, "<th>%s</th>", short_number(rate).c_str());
  out += "</tr></thead><tbody>";
  for (const std::string& policy : policies_of(document)) {
    append(out, "<tr><th>%s</th>", escaped(policy).c_str());
    for (const double rate : rates) {
      const Outcome outcome = outcome_at(document, policy, rate);
      if (outcome.num_runs == 0) {
        out += "<td></td>";
        continue;
      }
      const bool is_met = outcome.num_met == outcome.num_runs;
      append(out,
             "<td class=\"%s\"><a href=\"#run-%zu\" title=\"%s: %d of %d runs keep the "
             "objectives\">%s</a></td>",
             is_met ? "met" : "missed", outcome.first_run, escaped(policy).c_str(), outcome.num_met,
             outcome.num_runs, short_number(std::round(outcome.p99_ms * 10.0) / 10.0).c_str());
    }
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

void add_cell(std::string& out, double value, int digits) {
  append(out, "<td>%.*f</td>", digits, value);
}

std::string run_table(const json& document) {
  std::string out =
      "<div class=\"scroll\"><table class=\"runs\"><thead><tr><th>policy</th><th>req/s</th><th>seed"
      "</th><th>objectives</th><th>TPOT P50, ms</th><th>P99</th><th>kept, %</th><th>queue P99, "
      "s</th><th>straggler"
      "</th><th>requests</th><th>refused</th><th>unfinished</th><th>preemptions</th>"
      "</tr></thead><tbody>";
  const json& runs = document["runs"];
  for (size_t i = 0; i < runs.size(); ++i) {
    const json& run = runs[i];
    const json& all = run["all"];
    append(out, "<tr><th><a href=\"#run-%zu\">%s</a></th><td>%s</td><td>%llu</td>", i,
           escaped(run["policy"].get<std::string>()).c_str(),
           short_number(run["rate_per_s"]).c_str(),
           static_cast<unsigned long long>(run["seed"].get<uint64_t>()));
    const bool is_met = run["meets_objectives"];
    append(out, "<td class=\"%s\">%s</td>", is_met ? "good" : "bad",
           is_met                          ? "met"
           : run["is_stopped"].get<bool>() ? "missed (stopped)"
                                           : "missed");
    add_cell(out, all["tpot_us"]["p50"].get<double>() / 1e3, 2);
    add_cell(out, all["tpot_us"]["p99"].get<double>() / 1e3, 2);
    add_cell(out, 100.0 * run["attainment"].get<double>(), 2);
    add_cell(out, all["queue_us"]["p99"].get<double>() / 1e6, 2);
    add_cell(out, run["straggler_ratio"], 2);
    for (const char* field : {"num_requests", "num_refused", "num_unfinished"}) {
      add_cell(out, all[field].get<double>(), 0);
    }
    add_cell(out, run["num_preemptions"].get<double>(), 0);
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

std::string run_name(const json& run, bool has_seeds) {
  std::string name = run["policy"];
  name += " at " + short_number(run["rate_per_s"]) + " req/s";
  if (has_seeds) name += ", seed " + std::to_string(run["seed"].get<uint64_t>());
  return name;
}

std::string run_section(const json& document, size_t index, bool has_seeds) {
  const json& run = document["runs"][index];
  std::string out;
  append(out,
         "<section class=\"run\" id=\"run-%zu\" data-run=\"%zu\"><h2>%s</h2><p class=\"lead\">",
         index, index, escaped(run_name(run, has_seeds)).c_str());
  append(out, "%s requests, %s tokens in %s steps of %s ms on average with %s rows",
         short_number(run["all"]["num_requests"]).c_str(), short_number(run["num_tokens"]).c_str(),
         short_number(run["num_steps"]).c_str(),
         short_number(run["mean_step_us"].get<double>() / 1e3).c_str(),
         short_number(run["mean_rows"]).c_str());
  append(out, "; <span class=\"%s\">objectives %s</span>.</p>",
         run["meets_objectives"] ? "good" : "bad", run["meets_objectives"] ? "met" : "missed");
  if (run.contains("timeline")) out += "<div class=\"timeline\"></div>";
  out += figures_html(run_figures(document, run));
  return out + "</section>";
}

std::string constants_table(const json& document) {
  std::string out =
      "<details><summary>What the cost model charges, and where it is from</summary>"
      "<div class=\"scroll\"><table><thead><tr><th>constant</th><th>value</th><th>unit</th>"
      "<th>source</th></tr></thead><tbody>";
  for (const auto& [name, constant] : document["constants"].items()) {
    append(out, "<tr><th>%s</th><td>%s</td>", escaped(name).c_str(),
           short_number(constant["value"]).c_str());
    append(out, "<td class=\"text\">%s</td><td class=\"text\">%s</td></tr>",
           escaped(constant["unit"].get<std::string>()).c_str(),
           escaped(constant["source"].get<std::string>()).c_str());
  }
  return out + "</tbody></table></div></details>";
}

// What the page's script needs: all but the samples, which are drawn already, and what belongs to
// runs that have no section.
json page_data(const json& document, const std::vector<size_t>& shown) {
  json data = document;
  for (size_t i = 0; i < data["runs"].size(); ++i) {
    data["runs"][i].erase("samples");
    if (std::find(shown.begin(), shown.end(), i) == shown.end()) data["runs"][i].erase("timeline");
  }
  for (const StepPart& part : step_parts()) {
    data["parts"].push_back(
        {{"field", part.field}, {"name", part.name}, {"per_instance", part.is_per_instance}});
  }
  return data;
}

// The runs of a search are those at the rates that it found, or else its last ones.
json with_runs(const json& given) {
  json document = given;
  if (!is_search(given)) return document;
  document["runs"] = json::array();
  for (json& found : document["rates"]) {
    document["runs"].push_back(std::move(found["at_rate"]));
    found.erase("at_rate");
  }
  return document;
}

}  // namespace

std::string simulation_page(const json& given) {
  const json document = with_runs(given);
  const json& runs = document["runs"];
  // Runs of other seeds look alike; they are in the tables.
  std::vector<size_t> shown;
  bool has_seeds = false;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i]["seed"] == runs[0]["seed"]) {
      shown.push_back(i);
    } else {
      has_seeds = true;
    }
  }
  const bool has_rates = !is_search(document) && rates_of(document).size() > 1;
  std::string body = "<header><p class=\"kicker\">nanocp simulate</p>";
  append(body, "<h1>%s</h1><p class=\"lead\">%s.<br>%s.</p></header>",
         escaped(title_of(document)).c_str(), escaped(load_line(document)).c_str(),
         escaped(objectives_line(document)).c_str());
  body += is_search(document) ? found_rates(document) : findings(document);
  if (has_rates) body += matrix(document);
  body += figures_html(overview_figures(document));
  const std::string table = run_table(document);
  body +=
      has_rates ? "<details><summary>All runs in figures</summary>" + table + "</details>" : table;
  body += "<nav id=\"picker\" aria-label=\"run\"></nav>";
  for (const size_t i : shown) body += run_section(document, i, has_seeds);
  body += "<footer>" + constants_table(document) + "</footer>";
  return report_page(
      {.title = title_of(document), .body = body, .data = page_data(document, shown)});
}

std::string simulation_picture(const json& given) {
  const json document = with_runs(given);
  chart::Sheet sheet{.title = title_of(document),
                     .lines = {load_line(document), objectives_line(document)},
                     .items = {}};
  for (Figure& figure : overview_figures(document)) {
    sheet.items.push_back({std::move(figure.title), std::move(figure.svg)});
  }
  // A single run's own charts fill the picture.
  if (document["runs"].size() == 1) {
    for (Figure& figure : run_figures(document, document["runs"][0])) {
      sheet.items.push_back({std::move(figure.title), std::move(figure.svg)});
    }
  }
  return chart::draw(sheet);
}

}  // namespace nanocp::apps
