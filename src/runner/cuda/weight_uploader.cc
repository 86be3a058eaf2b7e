#include "runner/cuda/weight_uploader.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/weight_ops.h"

namespace nanocp::runner {

using cuda::cuda_status;
using tensor::WeightFormat;
using tensor::WeightView;

Result<std::unique_ptr<WeightUploader>> WeightUploader::create(const Options& options) {
  std::unique_ptr<WeightUploader> uploader(new WeightUploader(options));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaStreamCreateWithFlags(&uploader->stream_, cudaStreamNonBlocking),
                  "stream of the weight loader"));
  for (Piece& piece : uploader->pieces_) {
    NANOCP_RETURN_IF_ERROR(cuda_status(
        cudaHostAlloc(reinterpret_cast<void**>(&piece.pinned), kPieceBytes, cudaHostAllocDefault),
        "pinned memory of the weight loader"));
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming),
                    "event of the weight loader"));
  }
  return uploader;
}

WeightUploader::~WeightUploader() {
  if (stream_ != nullptr) static_cast<void>(cudaStreamSynchronize(stream_));
  for (Piece& piece : pieces_) {
    if (piece.copied != nullptr) static_cast<void>(cudaEventDestroy(piece.copied));
    if (piece.pinned != nullptr) static_cast<void>(cudaFreeHost(piece.pinned));
  }
  if (raw_ != nullptr) static_cast<void>(cudaFree(raw_));
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

Status WeightUploader::upload_bytes(const void* from, int64_t bytes, void* target) {
  const auto* source = static_cast<const uint8_t*>(from);
  auto* to = static_cast<uint8_t*>(target);
  for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
    const int64_t count = std::min(kPieceBytes, bytes - begin);
    Piece& piece = pieces_[next_piece_];
    next_piece_ = (next_piece_ + 1) % kNumPieces;
    NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventSynchronize(piece.copied), "upload of a weight"));
    pool_.parallel_for(count, int64_t{1} << 20, [&](int64_t part_begin, int64_t part_end) {
      std::memcpy(piece.pinned + part_begin, source + begin + part_begin,
                  static_cast<size_t>(part_end - part_begin));
    });
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaMemcpyAsync(to + begin, piece.pinned, static_cast<size_t>(count),
                                    cudaMemcpyHostToDevice, stream_),
                    "upload of a weight"));
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaEventRecord(piece.copied, stream_), "upload of a weight"));
    if (options_.done) options_.done(count);
  }
  return ok_status();
}

Status WeightUploader::reserve_raw(int64_t bytes) {
  if (bytes <= raw_bytes_) return ok_status();
  NANOCP_RETURN_IF_ERROR(finish());
  if (raw_ != nullptr) static_cast<void>(cudaFree(raw_));
  raw_ = nullptr;
  raw_bytes_ = 0;
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaMalloc(reinterpret_cast<void**>(&raw_), static_cast<size_t>(bytes)),
      "staging memory for a weight of " + std::to_string(bytes >> 20) + " MiB on the GPU"));
  raw_bytes_ = bytes;
  return ok_status();
}

// The matrix and its scales as they are stored, on the GPU; a view of them there.
Result<WeightView> WeightUploader::upload_raw(const WeightView& w) {
  const auto align = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  const int64_t row = tensor::row_bytes(w.format, w.cols);
  const int64_t span = w.rows == 0 ? 0 : (w.rows - 1) * w.stride_bytes + row;
  int64_t scale_rows = 0;
  int64_t scale_bytes = 0;
  int64_t group_bytes = 0;
  if (w.scales != nullptr) {
    scale_rows = (w.rows - 1 + w.scale_row_offset % w.block_rows) / w.block_rows + 1;
    const int64_t cols = (w.cols + w.block_cols - 1) / w.block_cols;
    scale_bytes = ((scale_rows - 1) * w.scale_stride + cols) * static_cast<int64_t>(sizeof(float));
  }
  if (w.group_scales != nullptr) {
    group_bytes = (w.rows - 1) * w.group_scale_stride + w.cols / tensor::kMxfp4GroupSize;
  }
  NANOCP_RETURN_IF_ERROR(reserve_raw(align(span) + align(scale_bytes) + group_bytes));
  WeightView raw = w;
  raw.data = raw_;
  NANOCP_RETURN_IF_ERROR(upload_bytes(w.data, span, raw_));
  if (w.scales != nullptr) {
    uint8_t* at = raw_ + align(span);
    const int64_t first = w.scale_row_offset / w.block_rows * w.scale_stride;
    NANOCP_RETURN_IF_ERROR(upload_bytes(w.scales + first, scale_bytes, at));
    raw.scales = reinterpret_cast<const float*>(at);
    raw.scale_row_offset = w.scale_row_offset % w.block_rows;
  }
  if (w.group_scales != nullptr) {
    uint8_t* at = raw_ + align(span) + align(scale_bytes);
    NANOCP_RETURN_IF_ERROR(upload_bytes(w.group_scales, group_bytes, at));
    raw.group_scales = at;
  }
  return raw;
}

Status WeightUploader::upload_matrix(const WeightView& w, void* target) {
  if (w.rows == 0 || w.cols == 0) return ok_status();
  if (w.format == WeightFormat::kBf16 && w.stride_bytes == w.cols * 2) {
    return upload_bytes(w.data, w.rows * w.stride_bytes, target);
  }
  NANOCP_ASSIGN_OR_RETURN(const WeightView raw, upload_raw(w));
  return cuda::launch_convert_weight(raw, target, w.cols, stream_);
}

Status WeightUploader::upload_floats(std::span<const float> values, float* target) {
  return upload_bytes(values.data(), static_cast<int64_t>(values.size_bytes()), target);
}

Status WeightUploader::fill_random(void* target, int64_t count, float amplitude) {
  return cuda::launch_fill_dummy(target, count, amplitude, seed_++, stream_);
}

Status WeightUploader::fill_ones(float* target, int64_t count) {
  return cuda::launch_fill_dummy_norm(target, count, seed_++, stream_);
}

Status WeightUploader::finish() {
  return cuda_status(cudaStreamSynchronize(stream_), "loading weights");
}

}  // namespace nanocp::runner
