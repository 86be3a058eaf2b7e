// Moves weights of any stored format to the current GPU as bf16: file -> pinned memory -> GPU, with
// several threads copying out of the mapped file while earlier pieces travel, then a conversion on
// the GPU. Owned by the loading thread of one instance.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/device_arena.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/weight.h"

namespace nanocp::runner {

class WeightUploader {
 public:
  struct Options {
    int num_threads = 4;
    std::function<void(int64_t bytes)> done;  // may be empty
  };
  static Result<std::unique_ptr<WeightUploader>> create(const Options& options);
  ~WeightUploader();
  WeightUploader(const WeightUploader&) = delete;
  WeightUploader& operator=(const WeightUploader&) = delete;

  // target[r, c] := w[r, c] as bf16; rows lie `w.cols` elements apart.
  Status upload_matrix(const tensor::WeightView& w, void* target);
  Status upload_floats(std::span<const float> values, float* target);
  // Random bf16 values of about `amplitude`, a new stream of them at each call.
  Status fill_random(void* target, int64_t count, float amplitude);
  Status fill_ones(float* target, int64_t count);
  void set_seed(uint64_t seed) { seed_ = seed; }
  // All that was enqueued has run.
  Status finish();

  cudaStream_t stream() const { return stream_; }

 private:
  struct Piece {
    uint8_t* pinned = nullptr;
    cudaEvent_t copied = nullptr;
  };
  explicit WeightUploader(const Options& options) : options_(options), pool_(options.num_threads) {}
  Status upload_bytes(const void* from, int64_t bytes, void* target);
  Status reserve_raw(int64_t bytes);
  Result<tensor::WeightView> upload_raw(const tensor::WeightView& w);

  static constexpr int64_t kPieceBytes = int64_t{16} << 20;
  static constexpr int kNumPieces = 4;

  const Options options_;
  ThreadPool pool_;
  cudaStream_t stream_ = nullptr;
  Piece pieces_[kNumPieces];
  int next_piece_ = 0;
  uint8_t* raw_ = nullptr;  // a matrix as stored, on the GPU
  int64_t raw_bytes_ = 0;
  uint64_t seed_ = 1;
};

}  // namespace nanocp::runner
