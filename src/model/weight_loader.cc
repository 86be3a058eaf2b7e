#include "model/weight_loader.h"

#include <new>
#include <utility>

#include "model/checkpoint.h"
#include "model/dummy_weights.h"
#include "model/load_jobs.h"
#include "model/weight_binder.h"

namespace nanocp::model {
namespace {

Result<Checkpoint> open_checkpoint(const ModelSpec& spec, const std::filesystem::path& model_dir,
                                   const LoadOptions& options) {
  if (!options.dummy) return Checkpoint::open(model_dir);
  return make_dummy_checkpoint(spec, {.seed = options.dummy_seed,
                                      .num_threads = options.num_threads,
                                      .progress = options.progress});
}

}  // namespace

Result<std::shared_ptr<const ModelWeights>> load_weights(const ModelSpec& spec,
                                                         const std::filesystem::path& model_dir,
                                                         const LoadOptions& options) try {
  NANOCP_ASSIGN_OR_RETURN(const Checkpoint checkpoint, open_checkpoint(spec, model_dir, options));
  auto weights = std::make_shared<ModelWeights>();
  WeightBinder binder(spec, checkpoint, options.read_ahead && !options.dummy);
  NANOCP_RETURN_IF_ERROR(visit_weights(spec, binder, *weights));
  const std::string unused = binder.describe_unused();
  if (!unused.empty() && options.note) options.note(unused);
  // Filling took the time where weights are made up: it has already been reported.
  run_load_jobs(binder.jobs(), options.num_threads,
                options.dummy ? ProgressFn() : options.progress);
  weights->owned = binder.owners();
  return std::shared_ptr<const ModelWeights>(std::move(weights));
} catch (const std::bad_alloc&) {
  return resource_exhausted("not enough memory to load the model's weights");
}

}  // namespace nanocp::model
