// The numbers that name things across the whole program.
#pragma once

#include <cstdint>

namespace nanocp {

using TokenId = int32_t;
using BlockId = int32_t;      // index of a KV block in one instance's pool
using InstanceId = int32_t;   // 0 .. num_instances-1; one device or one CPU share
using SequenceId = uint64_t;  // never reused while the program lives

constexpr InstanceId kNoInstance = -1;
constexpr TokenId kNoToken = -1;

}  // namespace nanocp
