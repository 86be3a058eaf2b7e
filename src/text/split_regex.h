// A regular expression that cuts text, as tokenizer.json writes them (Oniguruma's dialect), run by
// PCRE2. Immutable after construction; any thread, each with a scratch of its own.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace nanocp::text {

// Working memory of matches, reused from call to call. One thread.
class SplitScratch {
 public:
  SplitScratch();

 private:
  friend class SplitRegex;
  struct Free {
    void operator()(pcre2_real_match_data_8* data) const;
    void operator()(pcre2_real_match_context_8* context) const;
  };
  std::unique_ptr<pcre2_real_match_data_8, Free> data_;
  std::unique_ptr<pcre2_real_match_context_8, Free> context_;
};

class SplitRegex {
 public:
  // The error has no file or field. Constructs on which the two dialects differ are refused.
  static Result<SplitRegex> compile(std::string_view pattern);

  // Appends the matches in `text` and, if `keep_gaps`, what lies between them, in order. Bytes that
  // are not UTF-8 match nothing. Matching is bounded: where a pattern needs more steps than any of
  // the published ones, the rest of the text is one piece.
  void split(std::string_view text, bool keep_gaps, std::vector<std::string_view>& pieces,
             SplitScratch& scratch) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit SplitRegex(pcre2_real_code_8* code) : code_(code) {}
  void split_valid(std::string_view text, bool keep_gaps, std::vector<std::string_view>& pieces,
                   SplitScratch& scratch) const;

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace nanocp::text
