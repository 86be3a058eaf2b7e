#include "scheduler/check_plan.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <tuple>

namespace nanocp::scheduler {
namespace {

Error broken(const std::string& what, int64_t instance) {
  return {ErrorCode::kInternal, "step plan, instance " + std::to_string(instance) + ": " + what};
}

// One own row of an instance.
struct RowState {
  SequenceId sequence = 0;
  int32_t position = 0;
  int32_t num_appends = 0;
  InstanceId append_holder = kNoInstance;
  int64_t append_slot = -1;
  int64_t num_seen = 0;      // positions covered by items
  int32_t num_own_seen = 0;  // items that hold the slot of its own K/V
};

class PlanChecker {
 public:
  PlanChecker(const StepPlan& plan, const PlanLimits& limits) : plan_(plan), limits_(limits) {}

  Status run() {
    NANOCP_RETURN_IF_ERROR(check_sizes());
    NANOCP_RETURN_IF_ERROR(assign_rows());
    NANOCP_RETURN_IF_ERROR(check_samples());
    NANOCP_RETURN_IF_ERROR(check_scores());
    for (size_t i = 0; i < rows_.size(); ++i) NANOCP_RETURN_IF_ERROR(check_appends(i));
    for (size_t i = 0; i < rows_.size(); ++i) NANOCP_RETURN_IF_ERROR(check_items(i));
    NANOCP_RETURN_IF_ERROR(check_rows());
    return check_work();
  }

 private:
  Status check_sizes() const;
  Status check_tables(size_t i) const;
  Status assign_rows();
  Status check_samples() const;
  Status check_scores() const;
  Status check_appends(size_t i);
  Status check_items(size_t i);
  Status check_item(size_t i, const AttentionItem& item);
  Status check_shard(size_t i, const AttentionItem& item) const;
  Status check_rows() const;
  Status check_work() const;
  void add_work(size_t i, const AttentionItem& item, std::vector<InstanceWorkCount>& work) const;
  void see(size_t i, const AttentionItem& item, RowState& row) const;
  RowState* row_of(const RowTable InstancePlan::*table, size_t at, InstanceId source, int32_t row);

  const StepPlan& plan_;
  const PlanLimits& limits_;
  std::vector<std::vector<RowState>> rows_;  // [num_instances][num_rows]
};

Status PlanChecker::check_sizes() const {
  if (plan_.instances.size() != limits_.num_blocks.size()) return broken("number of instances", -1);
  if (plan_.sample_tasks.size() != plan_.instances.size()) return broken("sample_tasks size", -1);
  if (plan_.score_tasks.size() != plan_.instances.size()) return broken("score_tasks size", -1);
  for (size_t i = 0; i < plan_.instances.size(); ++i) NANOCP_RETURN_IF_ERROR(check_tables(i));
  return ok_status();
}

Status PlanChecker::check_tables(size_t i) const {
  const auto index = static_cast<int64_t>(i);
  const InstancePlan& own = plan_.instances[i];
  const size_t count = plan_.instances.size();
  if (own.positions.size() != own.token_ids.size()) return broken("positions size", index);
  if (own.query_sends.rows_of.size() != count || own.kv_sends.rows_of.size() != count ||
      own.num_query_receives.size() != count || own.num_kv_receives.size() != count) {
    return broken("table size", index);
  }
  if (!own.query_sends.rows_of[i].empty() || !own.kv_sends.rows_of[i].empty()) {
    return broken("sends to itself", index);
  }
  for (size_t source = 0; source < count; ++source) {
    const InstancePlan& sender = plan_.instances[source];
    if (sender.query_sends.rows_of[i].size() != static_cast<size_t>(own.num_query_receives[source]))
      return broken("num_query_receives", index);
    if (sender.kv_sends.rows_of[i].size() != static_cast<size_t>(own.num_kv_receives[source]))
      return broken("num_kv_receives", index);
    for (const auto* table : {&own.query_sends, &own.kv_sends}) {
      for (const int32_t row : table->rows_of[source]) {
        if (row < 0 || row >= own.num_rows()) return broken("sent row out of range", index);
      }
    }
  }
  return ok_status();
}

// Chunks are in the order in which their rows were laid out.
Status PlanChecker::assign_rows() {
  rows_.resize(plan_.instances.size());
  for (const ScheduledChunk& chunk : plan_.chunks) {
    if (chunk.num_tokens < 1) return broken("empty chunk", chunk.binding);
    auto& rows = rows_[static_cast<size_t>(chunk.binding)];
    for (int32_t i = 0; i < chunk.num_tokens; ++i) {
      RowState row;
      row.sequence = chunk.sequence;
      row.position = static_cast<int32_t>(chunk.first_position + i);
      rows.push_back(row);
    }
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto& positions = plan_.instances[i].positions;
    const bool agrees =
        std::equal(rows_[i].begin(), rows_[i].end(), positions.begin(), positions.end(),
                   [](const RowState& row, int32_t position) { return row.position == position; });
    if (!agrees) return broken("rows differ from chunks", static_cast<int64_t>(i));
  }
  return ok_status();
}

Status PlanChecker::check_scores() const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto& score_rows = plan_.instances[i].score_rows;
    const auto& tasks = plan_.score_tasks[i];
    const auto index = static_cast<int64_t>(i);
    if (score_rows.size() != tasks.size()) return broken("score_tasks differ", index);
    for (size_t t = 0; t < tasks.size(); ++t) {
      const ScoreTask& task = tasks[t];
      const int32_t row = score_rows[t];
      if (row < 0 || row >= std::ssize(rows_[i])) return broken("score row out of range", index);
      if (t > 0 && score_rows[t - 1] >= row) return broken("score_rows do not rise", index);
      const RowState& state = rows_[i][static_cast<size_t>(row)];
      const bool agrees = task.row == row && state.sequence == task.sequence->id &&
                          state.position + 1 == task.position &&
                          task.position < task.sequence->num_prompt_tokens();
      if (!agrees) return broken("score of another token", index);
    }
  }
  return ok_status();
}

Status PlanChecker::check_samples() const {
  size_t num_samples = 0;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto& sample_rows = plan_.instances[i].sample_rows;
    const auto& tasks = plan_.sample_tasks[i];
    const auto index = static_cast<int64_t>(i);
    if (sample_rows.size() != tasks.size()) return broken("sample_tasks differ", index);
    for (size_t t = 0; t < tasks.size(); ++t) {
      const int32_t row = sample_rows[t];
      if (row < 0 || row >= std::ssize(rows_[i])) return broken("sample row out of range", index);
      if (t > 0 && sample_rows[t - 1] >= row) return broken("sample_rows do not rise", index);
      if (tasks[t].row != row) return broken("sample task at another row", index);
      const RowState& state = rows_[i][static_cast<size_t>(row)];
      if (state.sequence != tasks[t].sequence->id) return broken("sample of another row", index);
      const int64_t num_before = tasks[t].sequence->num_prompt_tokens() + tasks[t].output_index;
      if (state.position + 1 != num_before) {
        return broken("sample not at the newest token", index);
      }
    }
    num_samples += tasks.size();
  }
  const auto expected = std::count_if(plan_.chunks.begin(), plan_.chunks.end(),
                                      [](const ScheduledChunk& chunk) { return chunk.samples; });
  if (static_cast<size_t>(expected) != num_samples) return broken("number of samples", -1);
  std::vector<const request::Sequence*> in_order;
  for (const auto& tasks : plan_.sample_tasks) {
    for (const SampleTask& task : tasks) in_order.push_back(task.sequence);
  }
  const bool agrees =
      std::equal(in_order.begin(), in_order.end(), plan_.samples.begin(), plan_.samples.end(),
                 [](const request::Sequence* task, const SamplingSequence& sample) {
                   return task == sample.sequence && task->id == sample.id;
                 });
  return agrees ? ok_status() : broken("samples differ from tasks", -1);
}

// The own row of `source` that `row` names on instance `at`, null when there is none.
RowState* PlanChecker::row_of(const RowTable InstancePlan::*table, size_t at, InstanceId source,
                              int32_t row) {
  if (source < 0 || source >= std::ssize(rows_) || row < 0) return nullptr;
  auto& rows = rows_[static_cast<size_t>(source)];
  if (static_cast<size_t>(source) != at) {
    const auto& sent = (plan_.instances[static_cast<size_t>(source)].*table).rows_of[at];
    if (row >= std::ssize(sent)) return nullptr;
    row = sent[static_cast<size_t>(row)];
  }
  return row < std::ssize(rows) ? &rows[static_cast<size_t>(row)] : nullptr;
}

Status PlanChecker::check_appends(size_t i) {
  const auto index = static_cast<int64_t>(i);
  std::vector<int64_t> slots;
  std::vector<std::tuple<InstanceId, int32_t>> received;
  for (const KvAppend& append : plan_.instances[i].appends) {
    RowState* row = row_of(&InstancePlan::kv_sends, i, append.source, append.row);
    if (row == nullptr) return broken("append of a row that does not exist", index);
    if (append.slot < 0 || append.slot >= limits_.num_blocks[i] * limits_.block_size) {
      return broken("append slot out of range", index);
    }
    if (append.slot % limits_.block_size != row->position % limits_.block_size) {
      return broken("append at a wrong offset", index);
    }
    ++row->num_appends;
    row->append_holder = static_cast<InstanceId>(i);
    row->append_slot = append.slot;
    slots.push_back(append.slot);
    received.emplace_back(append.source, append.row);
  }
  std::sort(slots.begin(), slots.end());
  if (std::adjacent_find(slots.begin(), slots.end()) != slots.end()) {
    return broken("two appends to one slot", index);
  }
  std::sort(received.begin(), received.end());
  if (std::adjacent_find(received.begin(), received.end()) != received.end()) {
    return broken("a row appended twice", index);
  }
  return ok_status();
}

Status PlanChecker::check_items(size_t i) {
  const auto index = static_cast<int64_t>(i);
  bool remote_seen = false;
  std::vector<int32_t> num_used(plan_.instances.size(), 0);
  for (const AttentionItem& item : plan_.instances[i].items) {
    const bool is_local = item.source == index;
    if (is_local && remote_seen) return broken("local item behind a received one", index);
    remote_seen = remote_seen || !is_local;
    NANOCP_RETURN_IF_ERROR(check_item(i, item));
    if (!is_local) num_used[static_cast<size_t>(item.source)] += item.num_rows;
  }
  if (num_used != plan_.instances[i].num_query_receives) {
    return broken("received queries and items differ", index);
  }
  return ok_status();
}

Status PlanChecker::check_item(size_t i, const AttentionItem& item) {
  const auto index = static_cast<int64_t>(i);
  if (item.num_rows < 1) return broken("item without rows", index);
  NANOCP_RETURN_IF_ERROR(check_shard(i, item));
  for (int32_t r = 0; r < item.num_rows; ++r) {
    RowState* row = row_of(&InstancePlan::query_sends, i, item.source, item.row_begin + r);
    if (row == nullptr) return broken("item of a row that does not exist", index);
    if (row->sequence != item.sequence) return broken("item of another sequence", index);
    if (row->position != item.first_position + r) return broken("item at a wrong position", index);
    see(i, item, *row);
  }
  return ok_status();
}

Status PlanChecker::check_shard(size_t i, const AttentionItem& item) const {
  const auto index = static_cast<int64_t>(i);
  if (item.blocks.size() != item.block_idx.size()) return broken("item spans differ", index);
  for (size_t b = 0; b < item.blocks.size(); ++b) {
    if (item.blocks[b] < 0 || item.blocks[b] >= limits_.num_blocks[i]) {
      return broken("block out of range", index);
    }
    if (b > 0 && item.block_idx[b - 1] >= item.block_idx[b]) {
      return broken("block_idx does not rise", index);
    }
  }
  return ok_status();
}

void PlanChecker::see(size_t i, const AttentionItem& item, RowState& row) const {
  for (size_t b = 0; b < item.blocks.size(); ++b) {
    const int64_t first = static_cast<int64_t>(item.block_idx[b]) * limits_.block_size;
    const int64_t num_visible =
        std::clamp<int64_t>(row.position + 1 - first, 0, limits_.block_size);
    row.num_seen += num_visible;
    const bool is_own_block = row.position >= first && row.position < first + limits_.block_size;
    const int64_t slot =
        static_cast<int64_t>(item.blocks[b]) * limits_.block_size + row.position - first;
    const bool is_appended_there =
        row.append_holder == static_cast<InstanceId>(i) && row.append_slot == slot;
    if (is_own_block && is_appended_there) ++row.num_own_seen;
  }
}

// Equal counts mean full cover: block_idx rise within a shard, and placements never hold a logical
// block twice.
Status PlanChecker::check_rows() const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    for (const RowState& row : rows_[i]) {
      const std::string name = "row of sequence " + std::to_string(row.sequence) + " at position " +
                               std::to_string(row.position);
      if (row.num_appends != 1) {
        return broken(name + " is appended " + std::to_string(row.num_appends) + " times", index);
      }
      if (row.num_seen != row.position + 1) {
        return broken(name + " sees " + std::to_string(row.num_seen) + " positions", index);
      }
      if (row.num_own_seen != 1) return broken(name + " does not see itself once", index);
    }
  }
  return ok_status();
}

// Counted from items, not from placements.
void PlanChecker::add_work(size_t i, const AttentionItem& item,
                           std::vector<InstanceWorkCount>& work) const {
  InstanceWorkCount& own = work[i];
  own.num_attended_rows += item.num_rows;
  const int64_t last = item.first_position + item.num_rows - 1;
  int64_t num_tokens = 0;
  int64_t num_own = 0;  // of the chunk's own rows, as far as the last block goes
  for (const int32_t idx : item.block_idx) {
    const int64_t first = int64_t{idx} * limits_.block_size;
    num_tokens += std::min<int64_t>(limits_.block_size, last + 1 - first);
    if (last >= first && last < first + limits_.block_size) num_own = item.num_rows;
  }
  if (item.num_rows == 1) {
    own.num_kv_tokens += num_tokens;
  } else {
    own.num_pairs += item.num_rows * num_tokens - std::min(num_own, num_tokens) * item.num_rows / 2;
  }
  if (item.source == static_cast<InstanceId>(i)) return;
  const auto num_instances = static_cast<int32_t>(plan_.instances.size());
  add_route(item.source, static_cast<InstanceId>(i), item.num_rows,
            Domains::of(limits_.num_instances_per_domain, num_instances),
            work[static_cast<size_t>(item.source)].routes, own.routes);
}

Status PlanChecker::check_work() const {
  std::vector<InstanceWorkCount> work(plan_.instances.size());
  int64_t num_rows = 0;
  for (size_t i = 0; i < work.size(); ++i) {
    work[i].num_rows = plan_.instances[i].num_rows();
    num_rows += work[i].num_rows;
    for (const AttentionItem& item : plan_.instances[i].items) add_work(i, item, work);
  }
  if (num_rows != plan_.num_rows) return broken("num_rows", -1);
  if (plan_.work.size() != work.size()) return broken("work size", -1);
  for (size_t i = 0; i < work.size(); ++i) {
    if (!(work[i] == plan_.work[i])) {
      return broken("counts of work differ from items", static_cast<int64_t>(i));
    }
  }
  return ok_status();
}

}  // namespace

Status check_plan(const StepPlan& plan, const PlanLimits& limits) {
  return PlanChecker(plan, limits).run();
}

}  // namespace nanocp::scheduler
