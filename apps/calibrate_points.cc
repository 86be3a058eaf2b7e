#include "apps/calibrate_points.h"

#include <algorithm>
#include <array>
#include <string>

#include "scheduler/cost_model.h"

namespace nanocp::apps {
namespace {

using engine::Phase;

// run_decode_bench admits for at most 64 steps before it measures.
constexpr int64_t kMoreTokens = 66;

struct Run {
  int64_t rows;
  int64_t tokens;
};

int64_t tokens_at_end(int64_t num_tokens, const CalibrationGrid& grid) {
  return num_tokens + grid.num_warmup_steps + grid.num_steps + kMoreTokens;
}

std::vector<Run> list_runs(const EngineOptions& options, const CalibrationGrid& grid) {
  const int64_t rows_max = options.max_num_seqs > 0 ? options.max_num_seqs
                                                    : std::min(256, options.max_num_batched_tokens);
  std::vector<Run> runs;
  for (const int64_t rows : grid.rows) {
    for (const int64_t tokens : grid.tokens) {
      const bool fits = rows <= rows_max && tokens <= grid.kv_tokens_max / rows;
      if (fits) runs.push_back({rows, tokens});
    }
  }
  return runs;
}

// Per row and remote holder: a query out, an output and its LSE (fp32) back. GPUs send bf16 values,
// CPU instances fp32 ones.
int64_t route_bytes_per_row(const EngineOptions& options, const model::AttentionSpec& attention) {
  const int64_t value_bytes = options.device == "cuda" ? 2 : 4;
  const int64_t values = int64_t{attention.cache_k_dim()} + attention.cache_v_dim();
  return attention.num_heads * (values * value_bytes + 4);
}

double sum_of(const CalibrationPoint& point, std::initializer_list<Phase> phases) {
  double sum = 0.0;
  for (const Phase phase : phases) sum += point.phase_us[static_cast<size_t>(phase)];
  return sum;
}

constexpr std::array kLayerPhases = {Phase::kDense,   Phase::kRoute,    Phase::kAttention,
                                     Phase::kMerge,   Phase::kDispatch, Phase::kIdleWait,
                                     Phase::kExperts, Phase::kCombine};

bool is_of_experts(Phase phase) {
  return phase == Phase::kDispatch || phase == Phase::kIdleWait || phase == Phase::kExperts ||
         phase == Phase::kCombine;
}

// What the constants per layer explain; the rest of a step is fixed cost and head.
double layer_us(const CalibrationPoint& point) {
  double sum = 0.0;
  for (const Phase phase : kLayerPhases) sum += point.phase_us[static_cast<size_t>(phase)];
  return sum;
}

int count_moe_layers(const model::ModelSpec& spec) {
  int count = 0;
  for (const auto& layer : spec.layers) count += layer.is_moe ? 1 : 0;
  return count;
}

class ConstantFitter {
 public:
  ConstantFitter(const std::vector<CalibrationPoint>& points, const model::ModelSpec& spec)
      : points_(points), plain_points_(points), num_layers_(spec.num_layers) {
    num_moe_layers_ = count_moe_layers(spec);
    const double timing_us = timing_us_per_phase(points, spec);
    for (CalibrationPoint& point : plain_points_) {
      for (const Phase phase : kLayerPhases) {
        const double num_timed = is_of_experts(phase) ? num_moe_layers_ : num_layers_;
        double& us = point.phase_us[static_cast<size_t>(phase)];
        us = std::max(0.0, us - timing_us * num_timed);
      }
    }
    cost_.shape.num_experts = std::max(1, spec.moe.num_experts);
    cost_.shape.experts_per_token = spec.moe.router.topk;
    for (const CalibrationPoint& point : points) {
      cost_.shape.num_instances = std::max(cost_.shape.num_instances, point.instance + 1);
    }
  }

  std::vector<FittedConstant> run() {
    fit_attention();
    if (num_moe_layers_ > 0) {
      fit_exchange();
      fit_experts();
    }
    fit_dense();
    fit_step();
    fit_route();
    return std::move(constants_);
  }

 private:
  struct Name {
    const char* name;
    const char* unit;
  };

  template <typename MakePoint>
  std::vector<FitPoint> local_points(MakePoint make_point) const {
    std::vector<FitPoint> result;
    for (const CalibrationPoint& point : plain_points_) {
      if (!point.is_split) result.push_back(make_point(point));
    }
    return result;
  }

  void add(const std::vector<Name>& names, const std::vector<FitPoint>& points, FitWeight weight) {
    const FitResult fit = fit_costs(points, weight);
    for (size_t i = 0; i < names.size(); ++i) {
      constants_.push_back({names[i].name, names[i].unit, fit.coefficients[i],
                            static_cast<int64_t>(points.size()), fit.relative_error,
                            fit.is_determined});
    }
  }

  void fit_attention() {
    const auto points = local_points([&](const CalibrationPoint& p) {
      return FitPoint{{1.0, static_cast<double>(p.num_kv_tokens), static_cast<double>(p.num_rows)},
                      sum_of(p, {Phase::kAttention}) / num_layers_};
    });
    add({{"attention_fixed_us", "us per layer"},
         {"attention_us_per_kv_token", "us per layer and KV token"},
         {"attention_us_per_row", "us per layer and row"}},
        points, FitWeight::kRelative);
  }

  // With equal rows everywhere the wait is the way of the rows between instances.
  void fit_exchange() {
    const auto points = local_points([&](const CalibrationPoint& p) {
      return FitPoint{
          {1.0, static_cast<double>(p.num_rows)},
          sum_of(p, {Phase::kDispatch, Phase::kIdleWait, Phase::kCombine}) / num_moe_layers_};
    });
    add({{"exchange_fixed_us", "us per MoE layer"},
         {"exchange_us_per_row", "us per MoE layer and row"}},
        points, FitWeight::kRelative);
  }

  // Few rows touch few experts; the number of those that are read saturates (see CostModel).
  void fit_experts() {
    const auto points = local_points([&](const CalibrationPoint& p) {
      const auto num_rows = static_cast<double>(p.num_rows * cost_.shape.num_instances);
      return FitPoint{{1.0, cost_.touched_experts(num_rows), cost_.received_rows(num_rows)},
                      sum_of(p, {Phase::kExperts}) / num_moe_layers_};
    });
    add({{"expert_fixed_us", "us per MoE layer"},
         {"expert_us_per_touched_expert", "us per MoE layer and expert"},
         {"expert_us_per_row", "us per MoE layer and received row"}},
        points, FitWeight::kRelative);
  }

  // The local parts of routing and merging (rotation, append, own results) cost every row the same.
  void fit_dense() {
    const auto points = local_points([&](const CalibrationPoint& p) {
      return FitPoint{{1.0, static_cast<double>(p.num_rows)},
                      sum_of(p, {Phase::kDense, Phase::kRoute, Phase::kMerge}) / num_layers_};
    });
    add({{"dense_fixed_us", "us per layer"}, {"dense_us_per_row", "us per layer and row"}}, points,
        FitWeight::kRelative);
  }

  // Of timed steps and timed phases, whose difference has little of timing in it.
  void fit_step() {
    std::vector<FitPoint> points;
    for (const CalibrationPoint& p : points_) {
      if (p.is_split) continue;
      points.push_back({{1.0, static_cast<double>(p.num_rows)}, p.step_us - layer_us(p)});
    }
    add({{"step_fixed_us", "us per step"}, {"step_us_per_row", "us per step and row"}}, points,
        FitWeight::kRelative);
  }

  // Splitting leaves KV tokens and rows of an instance as they were: what is added is the exchange.
  void fit_route() {
    std::vector<FitPoint> points;
    for (const CalibrationPoint& split : points_) {
      if (!split.is_split) continue;
      for (const CalibrationPoint& local : points_) {
        const bool is_twin =
            !local.is_split && local.run == split.run && local.instance == split.instance;
        if (!is_twin) continue;
        const double added = sum_of(split, {Phase::kRoute, Phase::kAttention, Phase::kMerge}) -
                             sum_of(local, {Phase::kRoute, Phase::kAttention, Phase::kMerge});
        points.push_back({{1.0, static_cast<double>(split.route_bytes)}, added / num_layers_});
      }
    }
    if (points.empty()) return;
    add({{"route_fixed_us", "us per layer"}, {"route_us_per_byte", "us per layer and byte"}},
        points, FitWeight::kAbsolute);
  }

  const std::vector<CalibrationPoint>& points_;
  std::vector<CalibrationPoint> plain_points_;  // without what timing adds to their phases
  const double num_layers_;
  int num_moe_layers_ = 0;
  scheduler::CostModel cost_;  // its shape
  std::vector<FittedConstant> constants_;
};

class GridRunner {
 public:
  GridRunner(EngineSession& session, EngineOptions options, const model::ModelSpec& spec,
             const CalibrationGrid& grid)
      : session_(session), options_(std::move(options)), spec_(spec), grid_(grid) {}

  Result<std::vector<CalibrationPoint>> run() {
    NANOCP_RETURN_IF_ERROR(
        for_each_run([this](int run_idx, bool is_split, const DecodeReport& report) {
          return add_points(run_idx, is_split, report);
        }));
    return std::move(points_);
  }

  Status run_plain(std::vector<CalibrationPoint>& points) {
    return for_each_run([&](int run_idx, bool is_split, const DecodeReport& report) {
      for (CalibrationPoint& point : points) {
        const bool is_same = point.run == run_idx && point.is_split == is_split;
        if (is_same) point.plain_step_us = report.tpot.mean_us;
      }
      return ok_status();
    });
  }

 private:
  template <typename Visit>
  Status for_each_run(Visit visit) {
    const std::vector<Run> runs = list_runs(options_, grid_);
    if (runs.empty()) {
      return invalid_argument(
          "no point of --rows and --tokens fits --max-kv-tokens and --max-num-seqs");
    }
    for (const bool is_split : {false, true}) {
      if (is_split && options_.num_instances == 1) break;
      // Each request on one instance, or over all of them.
      options_.policy = is_split ? "uniform_cp" : "bound";
      options_.router = "least_requests";
      options_.cp_degree = is_split ? options_.num_instances : 0;
      for (size_t i = 0; i < runs.size(); ++i) {
        NANOCP_ASSIGN_OR_RETURN(const DecodeReport report, measure(runs[i]));
        NANOCP_RETURN_IF_ERROR(visit(static_cast<int>(i), is_split, report));
      }
    }
    return ok_status();
  }

  Result<DecodeReport> measure(const Run& run) {
    NANOCP_RETURN_IF_ERROR(session_.restart(options_, spec_));
    DecodeBenchOptions bench;
    bench.contexts.assign(static_cast<size_t>(run.rows * options_.num_instances), run.tokens);
    bench.num_warmup_steps = grid_.num_warmup_steps;
    bench.num_steps = grid_.num_steps;
    return run_decode_bench(session_.engine(), bench);
  }

  Status add_points(int run_idx, bool is_split, const DecodeReport& report) {
    if (report.last_spans.empty()) {
      return unsupported("this device's runner does not time the phases of a step");
    }
    for (size_t i = 0; i < report.instances.size(); ++i) {
      const InstanceReport& instance = report.instances[i];
      CalibrationPoint point;
      point.is_split = is_split;
      point.run = run_idx;
      point.instance = static_cast<int>(i);
      point.num_rows = instance.num_rows;
      // Of the middle step: each row adds a token per step.
      point.num_kv_tokens = instance.num_kv_tokens - instance.num_rows * grid_.num_steps / 2;
      point.step_us = report.tpot.mean_us;
      point.phase_us = instance.phase_us;
      if (is_split) {
        point.route_bytes = instance.num_rows * (options_.num_instances - 1) *
                            route_bytes_per_row(options_, spec_.attention);
      }
      points_.push_back(point);
    }
    return ok_status();
  }

  EngineSession& session_;
  EngineOptions options_;
  const model::ModelSpec& spec_;
  const CalibrationGrid& grid_;
  std::vector<CalibrationPoint> points_;
};

}  // namespace

SessionNeeds calibration_needs(const EngineOptions& options, const CalibrationGrid& grid) {
  SessionNeeds needs;
  needs.any_length = true;
  needs.profile = true;
  // The KV cache follows the sum of what is named here: that of the largest run.
  const Run* largest = nullptr;
  const std::vector<Run> runs = list_runs(options, grid);
  const auto size = [&](const Run& run) { return run.rows * tokens_at_end(run.tokens, grid); };
  for (const Run& run : runs) {
    if (largest == nullptr || size(run) > size(*largest)) largest = &run;
  }
  if (largest == nullptr) return needs;
  needs.request_tokens.assign(static_cast<size_t>(largest->rows * options.num_instances),
                              tokens_at_end(largest->tokens, grid));
  return needs;
}

Result<std::vector<CalibrationPoint>> measure_points(EngineSession& session, EngineOptions options,
                                                     const model::ModelSpec& spec,
                                                     const CalibrationGrid& grid) {
  return GridRunner(session, std::move(options), spec, grid).run();
}

Status measure_plain_steps(EngineSession& session, EngineOptions options,
                           const model::ModelSpec& spec, const CalibrationGrid& grid,
                           std::vector<CalibrationPoint>& points) {
  return GridRunner(session, std::move(options), spec, grid).run_plain(points);
}

double timing_us_per_phase(const std::vector<CalibrationPoint>& points,
                           const model::ModelSpec& spec) {
  double num_timed = 0.0;
  for (const Phase phase : kLayerPhases) {
    num_timed += is_of_experts(phase) ? count_moe_layers(spec) : spec.num_layers;
  }
  std::vector<double> added_us;
  for (const CalibrationPoint& point : points) {
    if (point.plain_step_us > 0.0) added_us.push_back(point.step_us - point.plain_step_us);
  }
  if (added_us.empty()) return 0.0;
  const auto middle = added_us.begin() + std::ssize(added_us) / 2;
  std::nth_element(added_us.begin(), middle, added_us.end());
  return std::max(0.0, *middle) / num_timed;
}

std::vector<FittedConstant> fit_constants(const std::vector<CalibrationPoint>& points,
                                          const model::ModelSpec& spec) {
  return ConstantFitter(points, spec).run();
}

}  // namespace nanocp::apps
