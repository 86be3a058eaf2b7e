// A checkpoint of random weights that exists only in memory, in the formats of the spec, for runs
// that need a model's shapes and not its knowledge. The same seed gives the same bytes, whatever
// the number of threads; scales keep activations near 1.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "model/checkpoint.h"
#include "model/load_jobs.h"
#include "model/model_spec.h"

namespace nanocp::model {

struct DummyOptions {
  uint64_t seed = 1;
  int num_threads = 1;
  ProgressFn progress;
};

// Refuses a model that is larger than the machine's memory.
Result<Checkpoint> make_dummy_checkpoint(const ModelSpec& spec, const DummyOptions& options);

}  // namespace nanocp::model
