// Lengths of prompts and outputs, described by a short text and drawn with a given generator, the
// same on every machine. Immutable after parsing; any thread.
//
//   4096 | 4k | 1m                       that many tokens (k = 1,000, m = 1,000,000)
//   uniform(a,b)                         every length from a to b alike
//   loguniform(a,b)                      every ratio alike: as many from 1k to 2k as from 2k to 4k
//   lognormal(a,b)                       5 % below a, 5 % above b, clipped to [a / 4, 4 b]
//   normal(mean,sd,min,max)              clipped to [min, max]
//   quantiles(0:100k,50%:375k,100%:995k) linear between the given quantiles
//   70% D + 30% D                        a mixture; shares sum up to 100 %
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/result.h"

namespace nanocp::sim {

class LengthDistribution {
 public:
  // Names the part of `text` that is wrong, and what is allowed there.
  static Result<LengthDistribution> parse(std::string_view text);

  // At least 1.
  int64_t draw(Random& random) const;
  // The largest length that can be drawn.
  int64_t max() const;

 private:
  enum class Kind { kUniform, kLogUniform, kLogNormal, kNormal, kQuantiles };
  struct Part {
    double share = 1.0;
    Kind kind = Kind::kUniform;
    double a = 0.0;  // low or mean
    double b = 0.0;  // high or standard deviation
    double min = 0.0;
    double max = 0.0;
    std::vector<std::pair<double, double>> quantiles;  // (share, tokens), rising
  };

  static Result<Part> parse_part(std::string_view text);
  static Result<Part> make_part(std::string_view name, std::string_view arguments,
                                std::string_view text);
  static Result<Part> parse_quantiles(std::string_view arguments, std::string_view text);
  static double draw_part(const Part& part, Random& random);

  std::vector<Part> parts_;
};

// Splits at `separator` outside of parentheses; pieces are trimmed.
std::vector<std::string_view> split_outside(std::string_view text, char separator);

// The text in quotes, for errors.
std::string quoted(std::string_view text);

// "4k", "1.5m", "300": a positive number of tokens. Nothing where it is none.
Result<double> parse_tokens(std::string_view text);
// "95%" or "0.95" as 0.95.
Result<double> parse_share(std::string_view text);

}  // namespace nanocp::sim
