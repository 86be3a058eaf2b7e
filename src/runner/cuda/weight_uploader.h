// Moves weights to the current GPU: file -> pinned memory -> GPU, with several threads copying out
// of the mapped file while earlier pieces travel; then, where wanted, a conversion to bf16 on the
// GPU. Owned by the loading thread of one instance.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/dummy_pattern.h"
#include "tensor/weight.h"

namespace nanocp::runner {

class WeightUploader {
 public:
  static constexpr int kNumSlots = 3;  // of staged matrices: as many as an expert has

  static Result<std::unique_ptr<WeightUploader>> create(int num_threads);
  ~WeightUploader();
  WeightUploader(const WeightUploader&) = delete;
  WeightUploader& operator=(const WeightUploader&) = delete;

  // target[r, c] := w[r, c] as bf16; rows lie `w.cols` elements apart.
  Status upload_matrix(const tensor::WeightView& w, void* target);
  // A view of `w` in memory of the GPU, rows one after another: as it is stored if that is
  // `format`, else converted, which goes to bf16 alone. Valid on the stream until the slot is
  // staged again.
  Result<tensor::WeightView> stage(const tensor::WeightView& w, tensor::WeightFormat format,
                                   int slot);
  // The same of random values of about 1 / sqrt(cols). `shape` says format, rows, columns and
  // blocks.
  Result<tensor::WeightView> stage_dummy(const tensor::WeightView& shape, int slot);
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
  struct Staging {
    uint8_t* data = nullptr;
    int64_t bytes = 0;
  };
  struct Rows {
    const void* data;
    int64_t count;
    int64_t row_bytes;
    int64_t stride_bytes;
  };
  explicit WeightUploader(int num_threads) : pool_(num_threads) {}
  Status upload_bytes(const void* from, int64_t bytes, void* target);
  Status upload_rows(const Rows& rows, void* target);
  // Waits for the next piece, has `fill` write its bytes and sends them off.
  template <typename Fill>
  Status send_piece(int64_t bytes, void* target, Fill fill);
  Result<uint8_t*> reserve(int slot, int64_t bytes);
  Result<tensor::WeightView> stage_raw(const tensor::WeightView& w, int slot);
  Status fill_bits(void* target, int64_t bytes, const model::BitPattern& pattern);

  static constexpr int kRawSlot = kNumSlots;  // of what is converted at once
  static constexpr int64_t kPieceBytes = int64_t{16} << 20;
  static constexpr int kNumPieces = 4;

  ThreadPool pool_;
  cudaStream_t stream_ = nullptr;
  Piece pieces_[kNumPieces];
  int next_piece_ = 0;
  Staging staging_[kNumSlots + 1];  // on the GPU
  uint64_t seed_ = 1;
};

}  // namespace nanocp::runner
