// Calls that are JSON objects, {"name": ..., "arguments": {...}}: reads such an object up to its
// arguments, and finds the ends of values. Nothing here judges whether arguments are valid JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/output/delta_writer.h"
#include "api/output/text_buffer.h"

namespace nanocp::api {

// Follows the brackets of one JSON value as it comes.
class JsonScanner {
 public:
  // `depth` brackets are open already.
  explicit JsonScanner(int64_t depth = 0) : depth_(depth) {}

  // How much of `text` belongs to the value: up to the bracket that closes it, or to a '<' that is
  // not in a string, which may start a marker.
  size_t scan(std::string_view text);
  bool done() const { return done_; }

 private:
  int64_t depth_;
  bool in_string_ = false;
  bool escaped_ = false;
  bool done_ = false;
};

// What stands before the arguments of a call.
struct JsonHead {
  Read status = Read::kReject;
  size_t num_bytes = 0;             // up to the arguments, or the whole object if it is closed
  std::string name = {};            // unescaped
  bool closed = false;              // the arguments came before the name, or there are none
  std::string_view arguments = {};  // of a closed object; a view of the text
};

// Reads the object that `text` starts with, after white space; `ended`: no more will come.
// "parameters" stands for "arguments", too.
JsonHead read_json_head(std::string_view text, bool ended);

// Passes on arguments that are a JSON object, up to the bracket that closes it or to `end_marker`
// (which is not consumed; empty: none) outside of a string.
class JsonArguments {
 public:
  explicit JsonArguments(std::string_view end_marker) : end_marker_(end_marker) {}
  Read read(TextBuffer& in, DeltaWriter& out);

 private:
  std::string_view end_marker_;
  JsonScanner scanner_;
};

// One object: head, arguments, and what follows them within its brackets, which is dropped.
class JsonCall {
 public:
  explicit JsonCall(std::string_view end_marker)
      : end_marker_(end_marker), arguments_(end_marker) {}
  // The object starts behind `num_before` bytes, which are consumed with its head.
  Read read(TextBuffer& in, DeltaWriter& out, size_t num_before = 0);
  // Whether the head has been read.
  bool started() const { return state_ != State::kHead; }

 private:
  Read read_head(TextBuffer& in, DeltaWriter& out, size_t num_before);
  Read read_tail(TextBuffer& in);

  enum class State { kHead, kArguments, kTailStart, kTail };
  std::string_view end_marker_;
  State state_ = State::kHead;
  JsonArguments arguments_;
  JsonScanner tail_{1};
};

// Whether a name of a function may read so: not empty, no white space, quotes or brackets.
bool is_function_name(std::string_view name);

}  // namespace nanocp::api
