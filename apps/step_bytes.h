// How many bytes a decode step moves on each instance, from the model's spec and the placements of
// its requests: what a measured step is compared with. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "model/model_spec.h"
#include "tensor/kv_format.h"

namespace nanocp::apps {

// Of one instance and step.
struct StepBytes {
  // Read from memory. Each weight once, in the checkpoint's format and without the embedding table;
  // of the experts as many as the step's rows are expected to choose when all are chosen alike.
  double weights = 0.0;
  double kv = 0.0;  // what windows hide is not read
  // Sent to other instances.
  double query = 0.0;    // with new K/V whose tail is elsewhere
  double partial = 0.0;  // outputs and LSE of received rows
  double dispatch = 0.0;
  double combine = 0.0;

  double read() const { return weights + kv; }
  double sent() const { return query + partial + dispatch + combine; }
};

struct StepFormats {
  int32_t value_bytes = 2;  // of a value in the exchanges
  tensor::KvFormat kv = tensor::KvFormat::kBf16;
};

// [num_instances] for one row of each open sequence of `ids`.
std::vector<StepBytes> count_step_bytes(const model::ModelSpec& spec, const engine::Engine& engine,
                                        const std::vector<SequenceId>& ids,
                                        const StepFormats& formats);

}  // namespace nanocp::apps
