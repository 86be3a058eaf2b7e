#include "graph/step_graph.h"

#include <string>

namespace nanocp::graph {
namespace {

Status check(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return ok_status();
  return Error{ErrorCode::kInternal, std::string(call) + ": " + cudaGetErrorName(code) + " (" +
                                         cudaGetErrorString(code) + ")"};
}

// Ends a capture that failed on the way, so that the stream can be used again.
struct CaptureGuard {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  bool capturing = false;

  ~CaptureGuard() {
    if (capturing) static_cast<void>(cudaStreamEndCapture(stream, &graph));
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
    if (stream != nullptr) static_cast<void>(cudaStreamDestroy(stream));
    static_cast<void>(cudaGetLastError());
  }
};

}  // namespace

Result<std::unique_ptr<StepGraph>> StepGraph::capture(
    const std::function<Status(cudaStream_t)>& enqueue) {
  CaptureGuard guard;
  NANOCP_RETURN_IF_ERROR(check(cudaStreamCreateWithFlags(&guard.stream, cudaStreamNonBlocking),
                               "cudaStreamCreateWithFlags"));
  NANOCP_RETURN_IF_ERROR(
      check(cudaStreamBeginCapture(guard.stream, cudaStreamCaptureModeThreadLocal),
            "cudaStreamBeginCapture"));
  guard.capturing = true;
  NANOCP_RETURN_IF_ERROR(enqueue(guard.stream));
  guard.capturing = false;
  NANOCP_RETURN_IF_ERROR(
      check(cudaStreamEndCapture(guard.stream, &guard.graph), "cudaStreamEndCapture"));
  std::unique_ptr<StepGraph> result(new StepGraph());
  NANOCP_RETURN_IF_ERROR(
      check(cudaGraphGetNodes(guard.graph, nullptr, &result->num_nodes_), "cudaGraphGetNodes"));
  NANOCP_RETURN_IF_ERROR(
      check(cudaGraphInstantiate(&result->executable_, guard.graph, 0), "cudaGraphInstantiate"));
  return result;
}

StepGraph::~StepGraph() {
  if (executable_ != nullptr) static_cast<void>(cudaGraphExecDestroy(executable_));
}

Status StepGraph::launch(cudaStream_t stream) const {
  return check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch");
}

}  // namespace nanocp::graph
