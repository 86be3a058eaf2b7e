// All that a server tells about itself: metrics, the live page and its data, the trace of requests.
// Owned by the App and given to the EngineLoop as its observer: on_... are called by the loop's
// thread and never wait; all else may be called by any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "http/server.h"
#include "server/access_log.h"
#include "server/cluster_history.h"
#include "server/cluster_json.h"
#include "server/engine_observer.h"
#include "server/generation_notes.h"
#include "server/metrics.h"
#include "server/request_trace.h"

namespace nanocp::server {

class Observability final : public EngineObserver {
 public:
  // `clock` is of the kind of the EngineLoop's. `info.start_us` is set here; `access_log` may be
  // null.
  Observability(ClusterInfo info, const Clock& clock, std::unique_ptr<AccessLog> access_log);

  // What is known once the model is loaded. Before the first cluster() and before the loop starts.
  void set_loaded(std::string device, int64_t max_model_len);

  void on_step(const StepRecord& step) override;
  void on_end(const SequenceRecord& sequence) override;
  void on_snapshot(const ClusterSnapshot& snapshot) override;

  // An exchange that is over; `route` is the path of the route that answered it.
  void on_exchange(const http::Exchange& exchange, const std::string& route);

  // Whoever ends the process without this object's end: writes what the access log has queued. Any
  // thread, once no exchange is open.
  void finish_access_log();

  // GET /metrics, of type Metrics::kContentType.
  std::string metrics_text(const ClusterSnapshot& snapshot) const {
    return metrics_.text(snapshot);
  }
  // GET /cluster?since=SECONDS, application/json.
  std::string cluster(const ClusterSnapshot& snapshot, bool is_alive, std::string_view query) const;
  // GET /debug/trace, application/json: for chrome://tracing.
  std::string chrome_trace() const { return trace_.chrome_trace(); }

 private:
  ClusterInfo info_;
  const Clock& clock_;
  const std::unique_ptr<AccessLog> access_log_;
  GenerationNotes notes_;  // for the access log
  Metrics metrics_;
  ClusterHistory history_;
  RequestTrace trace_;
};

}  // namespace nanocp::server
