#include "model/exchange_order.h"

namespace nanocp::model {

std::vector<ExchangeMark> exchange_order(const ModelSpec& spec) {
  std::vector<ExchangeMark> order;
  int32_t num_shard = 0;
  int32_t num_expert = 0;
  for (const LayerSpec& layer : spec.layers) {
    order.push_back({ExchangeMark::Kind::kShard, num_shard++});
    if (layer.is_moe) order.push_back({ExchangeMark::Kind::kExpert, num_expert++});
  }
  return order;
}

}  // namespace nanocp::model
