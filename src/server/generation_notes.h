// What the access log tells of generation, from the end of a request's sequences until its answer
// is out. Bounded: notes of answers that never come are forgotten, oldest first. The engine loop's
// thread adds, any thread takes; the lock is held for a look into a map.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "request/request.h"
#include "server/engine_observer.h"

namespace nanocp::server {

// Of all sequences of a request together.
struct GenerationNote {
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  double first_token_s = -1.0;  // the earliest, since arrival; -1: none came
  int64_t degree = 0;           // the largest; 0: nothing was held at the end
  request::FinishReason finish_reason = request::FinishReason::kNone;  // of the last to end
};

class GenerationNotes {
 public:
  static constexpr size_t kNotesMax = 16384;

  void add(const SequenceRecord& sequence);
  // The note of that request, once.
  std::optional<GenerationNote> take(const std::string& request_id);

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, GenerationNote> notes_;  // this and the next: guarded by mutex_
  std::deque<std::string> order_;                          // of adding; taken ones are still in it
};

}  // namespace nanocp::server
