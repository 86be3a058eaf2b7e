#include "e2e/ahead_runner.h"

#include "base/check.h"

namespace nanocp::e2e {

engine::StepTicket AheadRunner::launch(const scheduler::StepPlan& plan) {
  NANOCP_CHECK_LT(launched_.size(), 2U);
  num_launched_ahead_ += launched_.empty() ? 0 : 1;
  launched_.push_back(&plan);
  return plan.step_id;
}

Result<engine::StepResult> AheadRunner::wait(engine::StepTicket ticket) {
  NANOCP_CHECK(!launched_.empty() && launched_.front()->step_id == ticket);
  scheduler::StepPlan plan = *launched_.front();  // its spans are those of the engine's plan
  launched_.pop_front();
  for (InstancePlan& instance : plan.instances) {
    for (const UnreadToken& unread : instance.unread_tokens) {
      instance.token_ids[static_cast<size_t>(unread.row)] =
          sampled_.at(static_cast<size_t>(unread.source)).at(static_cast<size_t>(unread.sample));
    }
    instance.unread_tokens.clear();
  }
  NANOCP_ASSIGN_OR_RETURN(engine::StepResult result, inner_.wait(inner_.launch(plan)));
  sampled_.clear();
  auto token = result.tokens.begin();
  for (const auto& tasks : plan.sample_tasks) {
    auto& sampled = sampled_.emplace_back();
    for (size_t i = 0; i < tasks.size(); ++i) sampled.push_back((token++)->token);
  }
  return result;
}

}  // namespace nanocp::e2e
