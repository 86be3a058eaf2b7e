#include "comm/loopback/loopback_shard_exchange.h"

#include <algorithm>

namespace nanocp::comm {
namespace {

void push_rows(MailboxGrid& grid, InstanceId destination, InstanceId source, uint64_t epoch,
               std::span<const int32_t> rows, tensor::ConstMatrix values) {
  const auto count = static_cast<int64_t>(rows.size());
  const tensor::Matrix slots = grid.slots(destination, source, epoch, count);
  NANOCP_CHECK_EQ(slots.cols, values.cols);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(values.row(rows[static_cast<size_t>(i)]), values.cols, slots.row(i));
  }
  grid.post(destination, source, epoch, count);
}

template <typename MatrixType>
BasicPartials<MatrixType> split_partials(MatrixType slots, const ExchangeShape& shape) {
  return {slots.columns(0, shape.partial_values),
          slots.columns(shape.partial_values, shape.lse_values)};
}

Error count_mismatch(const char* what, InstanceId source, int64_t got, int64_t planned) {
  return {ErrorCode::kInternal, "instance " + std::to_string(source) + " sent " +
                                    std::to_string(got) + " " + what + " rows, the plan says " +
                                    std::to_string(planned)};
}

}  // namespace

Status LoopbackShardExchange::send(const InstancePlan& plan, tensor::ConstMatrix q,
                                   tensor::ConstMatrix kv) {
  ++epoch_;
  plan_ = &plan;
  for (InstanceId to = 0; to < group_.shape_.num_instances; ++to) {
    if (plan.query_sends.rows(to).empty()) {
      NANOCP_CHECK(plan.kv_sends.rows(to).empty());
      continue;
    }
    push_rows(group_.kv_, to, instance_, epoch_, plan.kv_sends.rows(to), kv);
    push_rows(group_.query_, to, instance_, epoch_, plan.query_sends.rows(to), q);
  }
  return ok_status();
}

int64_t LoopbackShardExchange::num_received(InstanceId source) const {
  return plan_->num_query_receives[static_cast<size_t>(source)];
}

Result<ShardExchange::Received> LoopbackShardExchange::wait_rows(InstanceId source) {
  if (num_received(source) == 0) return Received{};
  // The query flag is raised after the K/V one, so one wait covers both.
  NANOCP_ASSIGN_OR_RETURN(const int64_t num_queries, group_.query_.wait(instance_, source, epoch_));
  NANOCP_ASSIGN_OR_RETURN(const int64_t num_kv, group_.kv_.wait(instance_, source, epoch_));
  const int64_t planned_kv = plan_->num_kv_receives[static_cast<size_t>(source)];
  if (num_queries != num_received(source)) {
    return count_mismatch("query", source, num_queries, num_received(source));
  }
  if (num_kv != planned_kv) return count_mismatch("K/V", source, num_kv, planned_kv);
  return Received{group_.query_.slots(instance_, source, epoch_, num_queries),
                  group_.kv_.slots(instance_, source, epoch_, num_kv)};
}

Partials LoopbackShardExchange::return_slots(InstanceId source) {
  return split_partials(group_.partial_.slots(source, instance_, epoch_, num_received(source)),
                        group_.shape_);
}

void LoopbackShardExchange::post_return(InstanceId source) {
  group_.partial_.post(source, instance_, epoch_, num_received(source));
}

Result<ConstPartials> LoopbackShardExchange::wait_return(InstanceId destination) {
  NANOCP_ASSIGN_OR_RETURN(const int64_t count,
                          group_.partial_.wait(instance_, destination, epoch_));
  const auto sent = static_cast<int64_t>(plan_->query_sends.rows(destination).size());
  if (count != sent) return count_mismatch("partial output", destination, count, sent);
  const tensor::ConstMatrix slots = group_.partial_.slots(instance_, destination, epoch_, count);
  return split_partials(slots, group_.shape_);
}

}  // namespace nanocp::comm
