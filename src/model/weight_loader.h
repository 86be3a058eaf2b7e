// A checkpoint directory (or no directory at all, for dummy weights) -> ModelWeights. Matrices stay
// in their stored format, as views of the mapped files wherever the layout allows; what has to be
// transposed is converted in parallel. Blocking; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "model/model_spec.h"
#include "model/model_weights.h"

namespace nanocp::model {

struct LoadOptions {
  // Random weights from the spec alone, in the spec's own formats; model_dir is not read.
  bool dummy = false;
  uint64_t dummy_seed = 1;
  int num_threads = 1;
  // Read every page now. Without it, pages of the files are read when the weights are first used.
  bool read_ahead = true;
  // May be empty; called from one thread at a time.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
  // May be empty; one line about what was skipped.
  std::function<void(const std::string&)> note;
};

Result<std::shared_ptr<const ModelWeights>> load_weights(const ModelSpec& spec,
                                                         const std::filesystem::path& model_dir,
                                                         const LoadOptions& options);

}  // namespace nanocp::model
