#include "apps/request_metrics.h"

#include <string>

namespace nanocp::apps {

using nlohmann::json;

namespace {

json percentiles_json(const sim::Percentiles& values) {
  return {{"mean", values.mean},
          {"p50", values.p50},
          {"p90", values.p90},
          {"p99", values.p99},
          {"max", values.max}};
}

}  // namespace

json class_json(const sim::ClassMetrics& metrics) {
  return {{"num_requests", metrics.num_requests},
          {"num_refused", metrics.num_refused},
          {"num_unfinished", metrics.num_unfinished},
          {"num_tpot_misses", metrics.num_tpot_misses},
          {"num_queue_misses", metrics.num_queue_misses},
          {"tpot_us", percentiles_json(metrics.tpot_us)},
          {"queue_us", percentiles_json(metrics.queue_us)},
          {"num_requests_by_degree", metrics.num_by_degree}};
}

json by_class_json(const sim::Metrics& metrics) {
  json document;
  for (size_t i = 0; i < sim::kClassNames.size(); ++i) {
    document[std::string(sim::kClassNames[i])] = class_json(metrics.by_class[i]);
  }
  return document;
}

json objectives_json(const sim::Objectives& objectives) {
  return {{"tpot_us", objectives.tpot_us},
          {"queue_us", objectives.queue_us},
          {"percentile", objectives.percentile}};
}

}  // namespace nanocp::apps
