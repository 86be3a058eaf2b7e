// Device memory of one GPU that is taken piece by piece and given back all at once. Owned by one
// instance; its thread, with its device current. Pieces are aligned to 256 bytes, zeroed, and stay
// where they are until the arena goes.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/cuda/cuda_status.h"

namespace nanocp::cuda {

class DeviceArena {
 public:
  explicit DeviceArena(std::string name) : name_(std::move(name)) {}
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;
  ~DeviceArena() {
    for (void* chunk : chunks_) static_cast<void>(cudaFree(chunk));
  }

  // `count` values of T. Fails, naming the arena and what was asked for, when the GPU is full.
  template <typename T>
  Result<T*> take(int64_t count) {
    NANOCP_ASSIGN_OR_RETURN(void* data, take_bytes(count * static_cast<int64_t>(sizeof(T))));
    return static_cast<T*>(data);
  }
  int64_t total_bytes() const { return total_bytes_; }

 private:
  Result<void*> take_bytes(int64_t bytes) {
    bytes = (std::max<int64_t>(bytes, 1) + 255) / 256 * 256;
    // A chunk of its own: what is left of the current one still serves small pieces.
    if (bytes >= kOwnChunkBytes) return add_chunk(bytes);
    if (bytes > left_bytes_) {
      NANOCP_ASSIGN_OR_RETURN(void* chunk, add_chunk(kChunkBytes));
      next_ = static_cast<uint8_t*>(chunk);
      left_bytes_ = kChunkBytes;
    }
    void* piece = next_;
    next_ += bytes;
    left_bytes_ -= bytes;
    return piece;
  }

  Result<void*> add_chunk(int64_t chunk_bytes) {
    void* chunk = nullptr;
    const cudaError_t code = cudaMalloc(&chunk, static_cast<size_t>(chunk_bytes));
    if (code != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return Error{ErrorCode::kResourceExhausted,
                   "no room on the GPU for " + name_ + ": " + std::to_string(chunk_bytes >> 20) +
                       " MiB more after " + std::to_string(total_bytes_ >> 20) + " MiB (" +
                       cudaGetErrorString(code) + ")"};
    }
    chunks_.push_back(chunk);
    total_bytes_ += chunk_bytes;
    NANOCP_RETURN_IF_ERROR(cuda_status(cudaMemset(chunk, 0, static_cast<size_t>(chunk_bytes)),
                                       "clearing memory for " + name_));
    return chunk;
  }

  static constexpr int64_t kChunkBytes = int64_t{32} << 20;
  // The driver hands out memory by 2 MiB: a chunk of this size wastes little.
  static constexpr int64_t kOwnChunkBytes = int64_t{4} << 20;
  const std::string name_;
  std::vector<void*> chunks_;
  uint8_t* next_ = nullptr;
  int64_t left_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

}  // namespace nanocp::cuda
