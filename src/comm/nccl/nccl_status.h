// NCCL's return codes as Status: the call's name and the library's own words.
#pragma once

#include <nccl.h>

#include <string>

#include "base/result.h"

namespace nanocp::comm {

inline Status nccl_status(ncclResult_t code, const std::string& what) {
  if (code == ncclSuccess) return ok_status();
  return Error{ErrorCode::kInternal,
               what + ": " + ncclGetErrorString(code) + "; NCCL_DEBUG=WARN shows more"};
}

}  // namespace nanocp::comm
