// Sets of Unicode characters as ranges of code points, surrogates left out. Values, any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace nanocp::grammar {

struct CharRange {
  char32_t low;
  char32_t high;  // included
  bool operator==(const CharRange&) const = default;
};

class CharSet {
 public:
  CharSet() = default;
  CharSet(std::initializer_list<CharRange> ranges) : CharSet(std::vector<CharRange>(ranges)) {}
  explicit CharSet(std::vector<CharRange> ranges);
  static CharSet all();

  // By rising code point, with gaps in between.
  const std::vector<CharRange>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t c) const;

  CharSet united(const CharSet& other) const;
  CharSet inverted() const;
  CharSet intersected(const CharSet& other) const;
  CharSet without(const CharSet& other) const { return intersected(other.inverted()); }

 private:
  std::vector<CharRange> ranges_;
};

}  // namespace nanocp::grammar
