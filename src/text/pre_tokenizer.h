// Cuts normalised text into the pieces within which BPE merges, as the pre_tokenizer of a
// tokenizer.json says. Immutable after construction; any thread, each with a scratch of its own.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/split_pattern.h"
#include "text/split_regex.h"

namespace nanocp::text {

// One way of cutting; each step cuts the pieces of the step before it.
struct RegexStep {
  SplitRegex regex;
  bool keep_gaps = true;  // what lies between matches is a piece too
};

// A piece starts at each occurrence of `delimiter`.
struct DelimiterStep {
  std::string delimiter;
};

using SplitStep = std::variant<SplitPattern, RegexStep, DelimiterStep>;

// What is put before a stretch of text that does not start with it yet.
struct Prefix {
  std::string text;            // empty: nothing
  bool only_at_start = false;  // only where the stretch is the start of the whole text
};

struct PreTokenizerSpec {
  std::string space_replacement;  // of every ' '; empty: none
  Prefix prefix;                  // after the replacement
  std::vector<SplitStep> steps;
};

class PreTokenizer {
 public:
  struct Scratch {
    SplitScratch regex;
    std::vector<std::string_view> before;  // pieces of the step before
    std::string text;
  };

  explicit PreTokenizer(PreTokenizerSpec spec) : spec_(std::move(spec)) {}

  // Replaces `pieces` by the pieces of `text`, in order: views of `text` or of the scratch.
  void split(std::string_view text, bool at_start, std::vector<std::string_view>& pieces,
             Scratch& scratch) const;

 private:
  std::string_view with_prefix(std::string_view text, bool at_start, Scratch& scratch) const;

  PreTokenizerSpec spec_;
};

}  // namespace nanocp::text
