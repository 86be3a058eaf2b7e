#include "server/generation_notes.h"

#include <algorithm>
#include <utility>

namespace nanocp::server {

void GenerationNotes::add(const SequenceRecord& sequence) {
  const std::lock_guard lock(mutex_);
  const auto [found, is_new] = notes_.try_emplace(sequence.request_id);
  if (is_new) {
    order_.push_back(sequence.request_id);
    if (order_.size() > kNotesMax) {
      notes_.erase(order_.front());
      order_.pop_front();
    }
  }
  GenerationNote& note = found->second;
  note.num_prompt_tokens += sequence.num_prompt_tokens;
  note.num_output_tokens += sequence.num_output_tokens;
  if (sequence.first_token_us >= 0) {
    const double time_s = static_cast<double>(sequence.first_token_us - sequence.arrival_us) * 1e-6;
    note.first_token_s = note.first_token_s < 0.0 ? time_s : std::min(note.first_token_s, time_s);
  }
  note.degree = std::max(note.degree, static_cast<int64_t>(sequence.summary.kv_tokens.size()));
  note.finish_reason = sequence.finish_reason;
}

std::optional<GenerationNote> GenerationNotes::take(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  auto node = notes_.extract(request_id);
  if (node.empty()) return std::nullopt;
  return node.mapped();
}

}  // namespace nanocp::server
