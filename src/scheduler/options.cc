#include "scheduler/options.h"

#include <limits>
#include <string>

namespace nanocp::scheduler {
namespace {

Status check_at_least(const char* name, int64_t value, int64_t minimum) {
  if (value >= minimum) return ok_status();
  return invalid_argument(std::string(name) + " is " + std::to_string(value) +
                          ", it must be at least " + std::to_string(minimum));
}

}  // namespace

Status check_options(const SchedulerOptions& options) {
  NANOCP_RETURN_IF_ERROR(check_at_least("number of instances", options.num_instances(), 1));
  NANOCP_RETURN_IF_ERROR(check_at_least("block_size", options.block_size, 1));
  for (const int64_t num_blocks : options.num_blocks) {
    NANOCP_RETURN_IF_ERROR(check_at_least("num_blocks of an instance", num_blocks, 1));
    if (num_blocks > std::numeric_limits<int32_t>::max()) {
      return invalid_argument("num_blocks of an instance is " + std::to_string(num_blocks) +
                              ", it must be below 2^31");
    }
  }
  NANOCP_RETURN_IF_ERROR(check_at_least("max_num_seqs", options.max_num_seqs, 1));
  if (options.max_batched_tokens < options.max_num_seqs) {
    return invalid_argument("max_batched_tokens " + std::to_string(options.max_batched_tokens) +
                            " is below max_num_seqs " + std::to_string(options.max_num_seqs) +
                            ": every running sequence needs a row per step");
  }
  NANOCP_RETURN_IF_ERROR(check_at_least("prefill_chunk_tokens", options.prefill_chunk_tokens, 0));
  NANOCP_RETURN_IF_ERROR(check_at_least("admission_lookahead", options.admission_lookahead, 0));
  NANOCP_RETURN_IF_ERROR(check_at_least("max_overtakes", options.max_overtakes, 0));
  if (!(options.watermark >= 0.0 && options.watermark < 1.0)) {
    return invalid_argument("watermark is " + std::to_string(options.watermark) +
                            ", it must be in [0, 1)");
  }
  return ok_status();
}

}  // namespace nanocp::scheduler
