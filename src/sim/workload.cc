#include "sim/workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace nanocp::sim {
namespace {

constexpr double kUsPerSecond = 1e6;

// Marsaglia and Tsang, 2000; shapes below 1 by their boost.
double draw_gamma(double shape, Random& random) {
  if (shape < 1.0) {
    const double u = 1.0 - random.uniform();
    return draw_gamma(shape + 1.0, random) * std::pow(u, 1.0 / shape);
  }
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double u1 = 1.0 - random.uniform();
    const double x =
        std::sqrt(-2.0 * std::log(u1)) * std::cos(2.0 * std::numbers::pi * random.uniform());
    const double v = std::pow(1.0 + c * x, 3.0);
    if (v <= 0.0) continue;
    const double u = 1.0 - random.uniform();
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double draw_gap_us(const LoadOptions& options, Random& random) {
  const double mean_us = kUsPerSecond / options.rate_per_s;
  if (options.process == ArrivalProcess::kConstant) return mean_us;
  if (options.process == ArrivalProcess::kGamma) {
    const double shape = 1.0 / (options.cv * options.cv);
    return mean_us * draw_gamma(shape, random) / shape;
  }
  return -mean_us * std::log(1.0 - random.uniform());
}

bool is_over(double time_us, const std::vector<Arrival>& arrivals, const LoadOptions& options) {
  return time_us >= options.duration_s * kUsPerSecond ||
         static_cast<int64_t>(arrivals.size()) >= options.num_requests_max;
}

// The mean gap also stands between the last request of one round and the first of the next.
double round_us(const std::vector<Arrival>& trace) {
  const double span_us = static_cast<double>(trace.back().time_us - trace.front().time_us);
  return span_us * static_cast<double>(trace.size()) /
         static_cast<double>(std::max<size_t>(1, trace.size() - 1));
}

bool parse_field(std::string_view line, size_t& begin, double& value) {
  size_t end = line.find(',', begin);
  if (end == std::string_view::npos) end = line.size();
  const auto [stop, error] = std::from_chars(line.data() + begin, line.data() + end, value);
  if (error != std::errc() || stop != line.data() + end || !std::isfinite(value)) return false;
  begin = std::min(line.size(), end + 1);
  return true;
}

}  // namespace

std::string issue_mixture(double percent) {
  // Prompt and output lengths as published for the workload: 95 % of short prompts of 85 to 290
  // tokens, about 3 % of 10.7 to 12.7 k (the rest is taken in between), and long ones by quantile.
  return std::to_string(100.0 - percent) +
         "% 95% uniform(85,290) + 3% uniform(10700,12700) + 2% loguniform(290,10700) -> "
         "normal(600,170,1,1600) ; " +
         std::to_string(percent) +
         "% quantiles(0:100k,10%:124k,25%:220k,50%:375k,75%:600k,90%:835k,100%:995k) -> "
         "normal(460,280,30,1600)";
}

Result<LengthMixture> LengthMixture::parse(std::string_view text) {
  if (text.starts_with("issue(") && text.ends_with(")")) {
    const Result<double> share = parse_share(std::string(text.substr(6, text.size() - 7)) + "%");
    if (!share.ok()) return share.error();
    return parse(issue_mixture(*share * 100.0));
  }
  LengthMixture result;
  double total = 0.0;
  const auto pieces = split_outside(text, ';');
  for (const std::string_view piece : pieces) {
    NANOCP_ASSIGN_OR_RETURN(Part part, parse_part(piece, pieces.size() > 1));
    total += part.share;
    result.parts_.push_back(std::move(part));
  }
  if (std::abs(total - 1.0) > 1e-6) {
    return invalid_argument("workload " + quoted(text) + ": shares must sum up to 100 %");
  }
  return result;
}

Result<LengthMixture::Part> LengthMixture::parse_part(std::string_view text, bool has_share) {
  const size_t arrow = text.find("->");
  if (arrow == std::string_view::npos) {
    return invalid_argument("workload part " + quoted(text) +
                            ": write PROMPT -> OUTPUT, as in 1k -> uniform(100,200)");
  }
  std::string_view prompt = text.substr(0, arrow);
  double share = 1.0;
  if (has_share) {
    const size_t percent = prompt.find('%');
    if (percent == std::string_view::npos || percent > prompt.find('(')) {
      return invalid_argument("workload part " + quoted(text) +
                              ": one of several starts with its share, as in 95% 1k -> 200");
    }
    NANOCP_ASSIGN_OR_RETURN(share, parse_share(prompt.substr(0, percent + 1)));
    prompt.remove_prefix(percent + 1);
  }
  NANOCP_ASSIGN_OR_RETURN(LengthDistribution prompt_lengths,
                          LengthDistribution::parse(split_outside(prompt, '\0').front()));
  NANOCP_ASSIGN_OR_RETURN(
      LengthDistribution output_lengths,
      LengthDistribution::parse(split_outside(text.substr(arrow + 2), '\0').front()));
  return Part{share, std::move(prompt_lengths), std::move(output_lengths)};
}

Arrival LengthMixture::draw(Random& random) const {
  double u = random.uniform();
  size_t i = 0;
  while (i + 1 < parts_.size() && u >= parts_[i].share) u -= parts_[i++].share;
  Arrival arrival;
  arrival.num_prompt_tokens = parts_[i].prompt.draw(random);
  arrival.num_output_tokens = parts_[i].output.draw(random);
  return arrival;
}

int64_t LengthMixture::max_prompt_tokens() const {
  int64_t most = 0;
  for (const Part& part : parts_) most = std::max(most, part.prompt.max());
  return most;
}

Result<std::vector<Arrival>> parse_trace(std::string_view csv, std::string_view name) {
  std::vector<Arrival> arrivals;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < csv.size(); ++line_number) {
    size_t end = csv.find('\n', begin);
    if (end == std::string_view::npos) end = csv.size();
    std::string_view line = csv.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line_number == 0) continue;
    size_t at = 0;
    double time_s = 0.0;
    double prompt = 0.0;
    double output = 0.0;
    const bool is_read = parse_field(line, at, time_s) && parse_field(line, at, prompt) &&
                         parse_field(line, at, output);
    const bool is_sane = is_read && time_s >= 0.0 && time_s < 1e9 && prompt >= 0.0 &&
                         prompt < 1e9 && output >= 0.0 && output < 1e9;
    const std::string where = std::string(name) + " line " + std::to_string(line_number + 1) + ": ";
    if (!is_sane) {
      return invalid_argument(where + "expected arrival_s,input_tokens,output_tokens");
    }
    Arrival arrival{.time_us = std::llround(time_s * kUsPerSecond),
                    .num_prompt_tokens = std::max<int64_t>(1, std::llround(prompt)),
                    .num_output_tokens = std::max<int64_t>(1, std::llround(output))};
    if (!arrivals.empty() && arrival.time_us < arrivals.back().time_us) {
      return invalid_argument(where + "arrivals must be sorted");
    }
    arrivals.push_back(arrival);
  }
  if (arrivals.empty()) return invalid_argument(std::string(name) + ": no request in it");
  return arrivals;
}

std::vector<Arrival> draw_load(const LengthMixture& mixture, const LoadOptions& options,
                               Random random) {
  // Separate generators: another rate draws the same lengths.
  Random lengths(random.next());
  std::vector<Arrival> arrivals;
  double time_us = 0.0;
  while (true) {
    time_us += draw_gap_us(options, random);
    if (is_over(time_us, arrivals, options)) return arrivals;
    arrivals.push_back(mixture.draw(lengths));
    arrivals.back().time_us = std::llround(time_us);
  }
}

ArrivalProcess arrival_process(std::string_view name) {
  if (name == "poisson") return ArrivalProcess::kPoisson;
  if (name == "gamma") return ArrivalProcess::kGamma;
  if (name == "constant") return ArrivalProcess::kConstant;
  NANOCP_CHECK(name == "trace");
  return ArrivalProcess::kTrace;
}

double native_rate_per_s(const std::vector<Arrival>& trace) {
  const double length_us = round_us(trace);
  return length_us > 0.0 ? kUsPerSecond * static_cast<double>(trace.size()) / length_us : 0.0;
}

std::vector<Arrival> replay_load(const std::vector<Arrival>& trace, const LoadOptions& options,
                                 Random random) {
  const double length_us = round_us(trace);
  const double target_us = kUsPerSecond * static_cast<double>(trace.size()) / options.rate_per_s;
  const auto share_of = [&](size_t i) {
    const auto from_start_us = static_cast<double>(trace[i].time_us - trace.front().time_us);
    return length_us > 0.0 ? from_start_us / length_us : 0.0;
  };
  const size_t first = options.is_rotated ? random.below(trace.size()) : 0;
  std::vector<Arrival> arrivals;
  double time_us = 0.0;
  for (size_t i = first;; ++i) {
    const Arrival& from = trace[i % trace.size()];
    const size_t round = i / trace.size();
    if (options.process == ArrivalProcess::kTrace) {
      time_us =
          (static_cast<double>(round) + share_of(i % trace.size()) - share_of(first)) * target_us;
    } else {
      time_us += draw_gap_us(options, random);
    }
    if (is_over(time_us, arrivals, options)) return arrivals;
    arrivals.push_back(from);
    arrivals.back().time_us = std::llround(time_us);
  }
}

}  // namespace nanocp::sim
