// What the GPU benchmarks share: checked CUDA calls, launches timed in graphs, and the kernel that
// measures what the memory can deliver. One thread.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace nanocp::bench {

inline void check_cuda(cudaError_t code, int line) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "error: line %d: %s\n", line, cudaGetErrorString(code));
  std::exit(1);
}
#define CHECK_CUDA(call) ::nanocp::bench::check_cuda((call), __LINE__)

// Median time in microseconds of one of `count` equal launches captured into a graph.
template <typename Launch>
double time_in_graph(int count, Launch launch_one) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) launch_one(i, stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  std::vector<float> times;
  for (int repetition = 0; repetition < 12; ++repetition) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(executable, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0.0F;
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    if (repetition >= 2) times.push_back(milliseconds * 1000.0F / static_cast<float>(count));
  }
  CHECK_CUDA(cudaGraphExecDestroy(executable));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace nanocp::bench
