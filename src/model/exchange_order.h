// The ordered list of exchanges of one step: the same on every instance, whatever rows it has. See
// comm/CONTRACT.md, comm.epochs. Plain data.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"

namespace nanocp::model {

struct ExchangeMark {
  enum class Kind : int32_t { kShard, kExpert };
  Kind kind;
  int32_t index;  // among those of its kind in a step

  bool operator==(const ExchangeMark&) const = default;
};

// A shard exchange for each layer, and behind it an expert exchange for each MoE layer.
std::vector<ExchangeMark> exchange_order(const ModelSpec& spec);

}  // namespace nanocp::model
