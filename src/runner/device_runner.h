// Runs steps on GPUs: one instance per GPU, each with a thread of its own. Implemented by
// runner/cuda, or by runner/no_cuda in a build without CUDA. The engine's thread launches and
// waits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model_runner.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "runner/device/expert_formats.h"
#include "tensor/kv_format.h"

namespace nanocp::runner {

// How instances exchange rows. kAuto: kNvlink where every GPU reaches the memory of the others.
enum class ExchangeTransport : int32_t { kAuto, kNvlink, kNccl };

struct DeviceRunnerOptions {
  int num_instances = 1;
  std::vector<int> devices;  // GPU of each instance; empty: 0 .. num_instances - 1
  int block_size = 64;       // tokens, a multiple of 16
  int64_t num_blocks = 0;    // per instance; 0: from memory_utilization
  tensor::KvFormat kv_format = tensor::KvFormat::kBf16;  // or kFp8
  double memory_utilization = 0.9;  // share of a GPU's memory that the program may take
  int max_rows = 512;               // per instance and step
  int max_graph_rows = 256;         // steps of so many rows run as captured graphs
  bool use_graphs = true;           // kNccl has none
  ExchangeTransport exchange = ExchangeTransport::kAuto;
  bool profile = false;                   // time the phases of each step
  bool time_steps = false;                // and what lies between steps: StepResult::idle_us
  int64_t wait_timeout_us = 30'000'000;   // of one wait of an instance for another
  int64_t step_timeout_us = 120'000'000;  // of the engine for a whole step
  bool keep_logits = false;               // hand the raw logits of every sampled row back
  ExpertWeightsChoice expert_weights = ExpertWeightsChoice::kAuto;
  uint64_t dummy_seed = 1;   // of the weights, where none are given
  int num_load_threads = 4;  // per instance
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;  // of loading; any thread
  std::function<void(const std::string&)> note;  // one line about memory and capture each
};

class DeviceRunner : public engine::ModelRunner {
 public:
  virtual int64_t num_blocks() const = 0;              // per instance
  virtual const std::string& device_name() const = 0;  // e.g. "NVIDIA H100 80GB HBM3"
  // With dummy weights: the K/V of benchmarks as it was after the start, so that no run depends on
  // the ones before it. Without them nothing happens. Requires: no step is in flight.
  virtual Status renew_dummy_kv() = 0;
};

// Loads the weights to all GPUs and captures the step graphs. `weights` null: dummy weights, made
// on the GPU. Fails, saying what does not fit, when driver, GPU, compute capability, memory or the
// model's shapes are not served.
Result<std::unique_ptr<DeviceRunner>> create_device_runner(
    std::shared_ptr<const model::ModelSpec> spec,
    std::shared_ptr<const model::ModelWeights> weights, const DeviceRunnerOptions& options);

}  // namespace nanocp::runner
