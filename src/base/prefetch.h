// A hint that memory is needed soon, for loops over objects that lie apart.
#pragma once

namespace nanocp {

inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  static_cast<void>(address);
#endif
}

}  // namespace nanocp
