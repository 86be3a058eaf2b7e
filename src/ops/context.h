// What every op needs besides its arguments: the threads of the instance that calls it.
// Owned by the instance; ops of one context run one after another.
#pragma once

#include "base/thread_pool.h"

namespace nanocp::ops {

struct Context {
  ThreadPool* pool;  // never null
};

}  // namespace nanocp::ops
