// A captured sequence of launches that is replayed with one call. Knows no model: what to capture
// is a callable that enqueues on the stream it is given. Owned by one instance; its thread, with
// its device current. What the launches read and write must stay where it is while the graph lives.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "base/result.h"

namespace nanocp::graph {

class StepGraph {
 public:
  // Runs `enqueue` on a capturing stream and keeps what it enqueued. Nothing is executed.
  static Result<std::unique_ptr<StepGraph>> capture(
      const std::function<Status(cudaStream_t)>& enqueue);
  ~StepGraph();
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;

  Status launch(cudaStream_t stream) const;
  size_t num_nodes() const { return num_nodes_; }

 private:
  StepGraph() = default;

  cudaGraphExec_t executable_ = nullptr;
  size_t num_nodes_ = 0;
};

}  // namespace nanocp::graph
