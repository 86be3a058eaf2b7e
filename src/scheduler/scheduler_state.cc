#include "scheduler/scheduler_state.h"

#include <utility>

namespace nanocp::scheduler {

SchedulerState::SchedulerState(SchedulerOptions scheduler_options, BindingMoves moves)
    : options(std::move(scheduler_options)),
      num_waiting_blocks(options.num_blocks.size(), 0),
      entries(options.block_size, &retired),
      decoding(domains(), options.num_instances(), options.block_size, moves),
      forecast(options.num_instances(), options.block_size) {
  for (const int64_t num_blocks : options.num_blocks) {
    pools.emplace_back(num_blocks);
    InstanceLoad load;
    load.num_blocks = num_blocks;
    load.num_free_blocks = num_blocks;
    load.max_sequences = options.max_num_seqs;
    load.max_rows = options.max_batched_tokens;
    loads.push_back(load);
  }
}

}  // namespace nanocp::scheduler
