// What a tokenizer does to text before it is cut: Unicode normalisation forms, a prefix, literal
// replacements. Immutable after construction; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nanocp::text {

struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kPrepend, kReplace };
  Kind kind = Kind::kNfc;
  std::string pattern;  // kReplace: what is replaced, not empty
  std::string content;  // kPrepend, kReplace
};

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  // `text` changed by all steps in order: either `text` itself or a view of `storage`. Bytes that
  // are not UTF-8 stay as they are. Time is O(n log n), also for long runs of combining marks.
  std::string_view apply(std::string_view text, std::string& storage) const;

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace nanocp::text
