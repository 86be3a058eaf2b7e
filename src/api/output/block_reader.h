// Reads one block of tool calls, from behind the marker that opens it to the one that closes it.
// One class per way of writing calls; a parser makes a new reader for each block. See
// ToolCallFormat.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/output/delta_writer.h"
#include "api/output/json_call.h"
#include "api/output/text_buffer.h"
#include "api/output/tool_types.h"
#include "api/output_parser.h"

namespace nanocp::api {

class BlockReader {
 public:
  virtual ~BlockReader() = default;
  // Consumes what is settled. kReject, before anything was consumed only: not a call, so that the
  // marker is content.
  virtual Read read(TextBuffer& in, DeltaWriter& out) = 0;
};

// How a format delimits its blocks.
struct BlockMarkers {
  std::span<const std::string_view> openers;   // start a block
  std::span<const std::string_view> sections;  // around blocks; shown to nobody
};
BlockMarkers block_markers(ToolCallFormat format);

// Markers of the format that may be special tokens of a tokenizer.
std::vector<std::string_view> call_tokens(ToolCallFormat format);

// For a block that openers[`opener`] has opened. Requires: `types` outlives the reader.
std::unique_ptr<BlockReader> make_block_reader(ToolCallFormat format, size_t opener,
                                               const ToolTypes& types);

// The list [{"name", "parameters"}, ...] that a forced choice of tools is constrained to, or that
// follows Mistral's marker.
class JsonCallList {
 public:
  Read read(TextBuffer& in, DeltaWriter& out);

 private:
  enum class State { kOpen, kBetween, kCall };
  State state_ = State::kOpen;
  JsonCall call_{""};
};

// The readers by family; make_block_reader chooses.
std::unique_ptr<BlockReader> make_hermes_reader();
std::unique_ptr<BlockReader> make_mistral_reader();
std::unique_ptr<BlockReader> make_deepseek_reader();
std::unique_ptr<BlockReader> make_kimi_reader();
std::unique_ptr<BlockReader> make_glm_reader(const ToolTypes& types);
// `in_function`: the marker was <function=, not <tool_call>.
std::unique_ptr<BlockReader> make_coder_reader(const ToolTypes& types, bool in_function);

}  // namespace nanocp::api
