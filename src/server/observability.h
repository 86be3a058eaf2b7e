// All that a server tells about itself: metrics, the live page and its data, the trace of requests.
// Owned by the App and given to the EngineLoop as its observer: on_... are called by the loop's
// thread and never wait; all else may be called by any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "server/cluster_history.h"
#include "server/cluster_json.h"
#include "server/engine_observer.h"
#include "server/metrics.h"
#include "server/request_trace.h"

namespace nanocp::server {

class Observability final : public EngineObserver {
 public:
  // `clock` is that of the EngineLoop. `info.start_us` is set here.
  Observability(ClusterInfo info, const Clock& clock);

  void on_step(const StepRecord& step) override;
  void on_end(const SequenceRecord& sequence) override;
  void on_snapshot(const ClusterSnapshot& snapshot) override;

  // GET /metrics, of type Metrics::kContentType.
  std::string metrics_text(const ClusterSnapshot& snapshot) const {
    return metrics_.text(snapshot);
  }
  // GET /cluster?since=SECONDS, application/json.
  std::string cluster(const ClusterSnapshot& snapshot, bool is_alive, std::string_view query) const;
  // GET /debug/trace, application/json: for chrome://tracing.
  std::string chrome_trace() const { return trace_.chrome_trace(); }
  // `path` is that of a route, not the client's.
  void count_response(const std::string& path, int status) {
    metrics_.count_response(path, status);
  }

 private:
  const ClusterInfo info_;
  const Clock& clock_;
  Metrics metrics_;
  ClusterHistory history_;
  RequestTrace trace_;
};

}  // namespace nanocp::server
