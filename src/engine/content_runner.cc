#include "engine/content_runner.h"

#include "base/check.h"
#include "base/random.h"

namespace nanocp::engine {
namespace {

// Sums of these do not depend on the order in which shards are merged.
uint64_t digest_of(int32_t position, TokenId token) {
  return counter_random(static_cast<uint64_t>(position) + 1, static_cast<uint64_t>(token));
}

TokenId token_of(uint64_t digest, int32_t vocab_size) {
  return static_cast<TokenId>(mix_bits(digest) % static_cast<uint64_t>(vocab_size));
}

// The own row that `row` names on `instance`: itself, or what `source` sent to that slot.
int32_t own_row(const RowTable& sent, InstanceId source, size_t instance, int32_t row) {
  if (static_cast<size_t>(source) == instance) return row;
  return sent.rows(static_cast<InstanceId>(instance))[static_cast<size_t>(row)];
}

}  // namespace

ContentRunner::ContentRunner(Options options) : options_(std::move(options)) {
  for (const int64_t num_blocks : options_.num_blocks) {
    slots_.emplace_back(static_cast<size_t>(num_blocks * options_.block_size));
  }
}

TokenId ContentRunner::next_token(const std::vector<TokenId>& tokens, int32_t vocab_size) {
  uint64_t digest = 0;
  for (size_t i = 0; i < tokens.size(); ++i)
    digest += digest_of(static_cast<int32_t>(i), tokens[i]);
  return token_of(digest, vocab_size);
}

TokenId ContentRunner::allowed_from(TokenId token, const TokenMask* mask, int32_t vocab_size) {
  if (mask == nullptr) return token;
  for (int32_t i = 0; i < vocab_size; ++i) {
    const TokenId next = (token + i) % vocab_size;
    if (mask_allows(*mask, next)) return next;
  }
  return token;
}

StepTicket ContentRunner::launch(const scheduler::StepPlan& plan) {
  NANOCP_CHECK(launched_.size() < (options_.runs_ahead ? 2U : 1U));
  for (const InstancePlan& instance : plan.instances) {
    NANOCP_CHECK(instance.unread_tokens.empty() || !launched_.empty());
  }
  num_launched_ahead += launched_.empty() ? 0 : 1;
  Launched& launched = launched_.emplace_back(Launched{&plan, {}});
  for (const auto& tasks : plan.sample_tasks) {
    for (const scheduler::SampleTask& task : tasks) {
      launched.masks.push_back(task.sequence->request.sampling.allowed_tokens);
    }
  }
  return plan.step_id;
}

Result<StepResult> ContentRunner::wait(StepTicket ticket) {
  NANOCP_CHECK(!launched_.empty() && launched_.front().plan->step_id == ticket);
  if (during_wait) during_wait();
  const Launched launched = std::move(launched_.front());
  const scheduler::StepPlan& plan = *launched.plan;
  launched_.pop_front();
  if (!failure.empty()) return Error{ErrorCode::kDeadlineExceeded, failure};
  read_tokens(plan);
  seen_.assign(plan.instances.size(), {});
  for (size_t i = 0; i < plan.instances.size(); ++i) {
    seen_[i].resize(static_cast<size_t>(plan.instances[i].num_rows()));
    num_rows += plan.instances[i].num_rows();
  }
  for (size_t i = 0; i < plan.instances.size(); ++i) write(plan, i);
  for (size_t i = 0; i < plan.instances.size(); ++i) NANOCP_RETURN_IF_ERROR(read(plan, i));
  return sample(plan, launched.masks);
}

bool ContentRunner::can_launch_ahead(const scheduler::StepPlan& /*next*/) const {
  return !allows_ahead || allows_ahead();
}

// What the step before has sampled is known by now.
void ContentRunner::read_tokens(const scheduler::StepPlan& plan) {
  token_ids_.clear();
  for (const InstancePlan& instance : plan.instances) {
    std::vector<TokenId>& token_ids = token_ids_.emplace_back(instance.token_ids);
    for (const UnreadToken& unread : instance.unread_tokens) {
      NANOCP_CHECK_EQ(token_ids[static_cast<size_t>(unread.row)], kNoToken);
      token_ids[static_cast<size_t>(unread.row)] =
          sampled_.at(static_cast<size_t>(unread.source)).at(static_cast<size_t>(unread.sample));
    }
  }
}

void ContentRunner::write(const scheduler::StepPlan& plan, size_t instance) {
  std::vector<std::vector<SequenceId>> sequence_of(plan.instances.size());
  for (const scheduler::ScheduledChunk& chunk : plan.chunks) {
    auto& sequences = sequence_of[static_cast<size_t>(chunk.binding)];
    sequences.insert(sequences.end(), static_cast<size_t>(chunk.num_tokens), chunk.sequence);
  }
  for (const KvAppend& append : plan.instances[instance].appends) {
    const auto source = static_cast<size_t>(append.source);
    const InstancePlan& sender = plan.instances[source];
    const auto row =
        static_cast<size_t>(own_row(sender.kv_sends, append.source, instance, append.row));
    slots_[instance].at(static_cast<size_t>(append.slot)) = {.sequence = sequence_of[source][row],
                                                             .position = sender.positions[row],
                                                             .token = token_ids_[source][row]};
  }
}

Status ContentRunner::read(const scheduler::StepPlan& plan, size_t instance) {
  for (const AttentionItem& item : plan.instances[instance].items) {
    const auto source = static_cast<size_t>(item.source);
    num_remote_items += source == instance ? 0 : 1;
    for (int32_t r = 0; r < item.num_rows; ++r) {
      const int32_t row =
          own_row(plan.instances[source].query_sends, item.source, instance, item.row_begin + r);
      Seen& seen = seen_[source][static_cast<size_t>(row)];
      NANOCP_RETURN_IF_ERROR(read_row(item, instance, item.first_position + r, seen));
    }
  }
  return ok_status();
}

Status ContentRunner::read_row(const AttentionItem& item, size_t instance, int32_t position,
                               Seen& seen) const {
  for (size_t b = 0; b < item.blocks.size(); ++b) {
    const int32_t first = item.block_idx[b] * options_.block_size;
    for (int32_t offset = 0; offset < options_.block_size && first + offset <= position; ++offset) {
      const int64_t at = static_cast<int64_t>(item.blocks[b]) * options_.block_size + offset;
      const Slot& slot = slots_[instance].at(static_cast<size_t>(at));
      if (slot.sequence != item.sequence || slot.position != first + offset) {
        return Error{ErrorCode::kInternal,
                     "sequence " + std::to_string(item.sequence) + " reads position " +
                         std::to_string(first + offset) + " from a slot of sequence " +
                         std::to_string(slot.sequence) + ", position " +
                         std::to_string(slot.position) + ", instance " + std::to_string(instance)};
      }
      ++seen.num_tokens;
      seen.digest += digest_of(slot.position, slot.token);
    }
  }
  return ok_status();
}

Result<StepResult> ContentRunner::sample(const scheduler::StepPlan& plan,
                                         const std::vector<Mask>& masks) {
  StepResult result;
  sampled_.assign(plan.instances.size(), {});
  for (size_t i = 0; i < plan.instances.size(); ++i) {
    for (size_t row = 0; row < seen_[i].size(); ++row) {
      if (seen_[i][row].num_tokens == plan.instances[i].positions[row] + 1) continue;
      return Error{ErrorCode::kInternal, "row " + std::to_string(row) + " of instance " +
                                             std::to_string(i) + " saw " +
                                             std::to_string(seen_[i][row].num_tokens) + " tokens"};
    }
    for (const scheduler::SampleTask& task : plan.sample_tasks[i]) {
      SampledToken sampled;
      sampled.sequence = task.sequence->id;
      const TokenId token =
          token_of(seen_[i][static_cast<size_t>(task.row)].digest, options_.vocab_size);
      const TokenMask* mask = ignores_masks ? nullptr : masks[result.tokens.size()].get();
      sampled.token = allowed_from(token, mask, options_.vocab_size);
      sampled_[i].push_back(sampled.token);
      result.tokens.push_back(std::move(sampled));
    }
    for (const scheduler::ScoreTask& task : plan.score_tasks[i]) {
      const TokenId expected =
          token_of(seen_[i][static_cast<size_t>(task.row)].digest, options_.vocab_size);
      const bool is_expected = task.sequence->token(task.position) == expected;
      result.scored.push_back(
          {.sequence = task.sequence->id,
           .position = task.position,
           .score = {.logprob = is_expected ? 0.0F : -1.0F, .top_logprobs = {{expected, 0.0F}}}});
    }
  }
  return result;
}

}  // namespace nanocp::engine
