// How much a client's grammar may ask for. What is beyond is refused with the number.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nanocp::grammar {

constexpr size_t kTextBytesMax = size_t{256} << 10;  // of a schema, pattern or grammar
constexpr size_t kChoicesBytesMax = size_t{256} << 10;
constexpr size_t kNodesMax = 400'000;    // of the automaton
constexpr int32_t kSchemaDepthMax = 64;  // of nested values in a schema's text
constexpr size_t kPropertiesMax = 1000;  // members of one object in a schema
constexpr int32_t kSchemaVisitsMax = 20'000;
constexpr int32_t kRegexDepthMax = 64;       // nested groups
constexpr uint32_t kRepeatMax = 1'000'000;   // counts in patterns and schemas
constexpr uint32_t kNestingMax = 128;        // open calls at which no rule that nests is called
constexpr uint32_t kStackMax = 512;          // open calls at all
constexpr size_t kConfigsMax = 8192;         // places in the grammar that a text may be at
constexpr int64_t kMaskWorkMax = 3'000'000;  // places looked at for one mask
constexpr size_t kMaskStatesMax = 40'000;    // new states for one mask
constexpr size_t kCacheBytesMax = size_t{48} << 20;  // of states and masks of one grammar

}  // namespace nanocp::grammar
