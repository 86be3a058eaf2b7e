#include "runner/cuda/weight_uploader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/weight_ops.h"

namespace nanocp::runner {

using cuda::cuda_status;
using model::StoredType;
using tensor::WeightFormat;
using tensor::WeightView;

namespace {

constexpr int64_t kCopyJobBytes = int64_t{1} << 20;
constexpr int64_t kConvertedBytes = int64_t{64} << 20;  // of a matrix at once

int64_t align(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Where data and scales of a staged matrix lie, one after another.
struct StagedLayout {
  int64_t data_bytes = 0;
  int64_t scale_bytes = 0;        // float32 of kFp8Block
  int64_t group_scale_bytes = 0;  // of kMxfp4

  int64_t scales_at() const { return align(data_bytes); }
  int64_t total_bytes() const {
    return align(data_bytes) + align(scale_bytes) + align(group_scale_bytes);
  }
};

// Rows of scales that the view's rows touch, counted from the first that they do.
int64_t scale_rows(const WeightView& w) {
  return ceil_div(w.rows + w.scale_row_offset % w.block_rows, w.block_rows);
}

StagedLayout lay_out(const WeightView& w) {
  StagedLayout layout;
  layout.data_bytes = w.rows * tensor::row_bytes(w.format, w.cols);
  if (w.format == WeightFormat::kFp8Block) {
    layout.scale_bytes = scale_rows(w) * ceil_div(w.cols, w.block_cols) * 4;
  }
  if (w.format == WeightFormat::kMxfp4) {
    layout.group_scale_bytes = w.rows * (w.cols / tensor::kMxfp4GroupSize);
  }
  return layout;
}

// The view of a matrix like `w` that lies at `base`.
WeightView staged_view(const WeightView& w, const StagedLayout& layout, uint8_t* base) {
  WeightView staged = w;
  staged.data = base;
  staged.stride_bytes = tensor::row_bytes(w.format, w.cols);
  if (w.format == WeightFormat::kFp8Block) {
    staged.scales = reinterpret_cast<const float*>(base + layout.scales_at());
    staged.scale_stride = ceil_div(w.cols, w.block_cols);
    staged.scale_row_offset = w.scale_row_offset % w.block_rows;
  }
  if (w.format == WeightFormat::kMxfp4) {
    staged.group_scales = base + layout.scales_at();
    staged.group_scale_stride = w.cols / tensor::kMxfp4GroupSize;
  }
  return staged;
}

}  // namespace

Result<std::unique_ptr<WeightUploader>> WeightUploader::create(int num_threads) {
  std::unique_ptr<WeightUploader> uploader(new WeightUploader(num_threads));
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
  for (Staging& staging : staging_) {
    if (staging.data != nullptr) static_cast<void>(cudaFree(staging.data));
  }
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

template <typename Fill>
Status WeightUploader::send_piece(int64_t bytes, void* target, Fill fill) {
  Piece& piece = pieces_[next_piece_];
  next_piece_ = (next_piece_ + 1) % kNumPieces;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventSynchronize(piece.copied), "upload of a weight"));
  fill(piece.pinned);
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMemcpyAsync(target, piece.pinned, static_cast<size_t>(bytes),
                                  cudaMemcpyHostToDevice, stream_),
                  "upload of a weight"));
  return cuda_status(cudaEventRecord(piece.copied, stream_), "upload of a weight");
}

Status WeightUploader::upload_bytes(const void* from, int64_t bytes, void* target) {
  const auto* source = static_cast<const uint8_t*>(from);
  auto* to = static_cast<uint8_t*>(target);
  for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
    const int64_t count = std::min(kPieceBytes, bytes - begin);
    NANOCP_RETURN_IF_ERROR(send_piece(count, to + begin, [&](uint8_t* pinned) {
      pool_.parallel_for(count, kCopyJobBytes, [&](int64_t part_begin, int64_t part_end) {
        std::memcpy(pinned + part_begin, source + begin + part_begin,
                    static_cast<size_t>(part_end - part_begin));
      });
    }));
  }
  return ok_status();
}

// Rows that lie apart come together in pinned memory, so that only they travel.
Status WeightUploader::upload_rows(const Rows& rows, void* target) {
  if (rows.stride_bytes == rows.row_bytes) {
    return upload_bytes(rows.data, rows.count * rows.row_bytes, target);
  }
  NANOCP_CHECK_LE(rows.row_bytes, kPieceBytes);
  const auto* source = static_cast<const uint8_t*>(rows.data);
  auto* to = static_cast<uint8_t*>(target);
  const int64_t piece_rows = kPieceBytes / rows.row_bytes;
  const int64_t job_rows = std::max<int64_t>(1, kCopyJobBytes / rows.row_bytes);
  for (int64_t begin = 0; begin < rows.count; begin += piece_rows) {
    const int64_t count = std::min(piece_rows, rows.count - begin);
    const auto fill = [&](uint8_t* pinned) {
      pool_.parallel_for(count, job_rows, [&](int64_t row_begin, int64_t row_end) {
        for (int64_t row = row_begin; row < row_end; ++row) {
          std::memcpy(pinned + row * rows.row_bytes, source + (begin + row) * rows.stride_bytes,
                      static_cast<size_t>(rows.row_bytes));
        }
      });
    };
    NANOCP_RETURN_IF_ERROR(send_piece(count * rows.row_bytes, to + begin * rows.row_bytes, fill));
  }
  return ok_status();
}

Result<uint8_t*> WeightUploader::reserve(int slot, int64_t bytes) {
  Staging& staging = staging_[slot];
  if (bytes <= staging.bytes) return staging.data;
  NANOCP_RETURN_IF_ERROR(finish());
  if (staging.data != nullptr) static_cast<void>(cudaFree(staging.data));
  staging = {};
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaMalloc(reinterpret_cast<void**>(&staging.data), static_cast<size_t>(bytes)),
      "staging memory for a weight of " + std::to_string(bytes >> 20) + " MiB on the GPU"));
  staging.bytes = bytes;
  return staging.data;
}

// The matrix and its scales as they are stored.
Result<WeightView> WeightUploader::stage_raw(const WeightView& w, int slot) {
  const StagedLayout layout = lay_out(w);
  NANOCP_ASSIGN_OR_RETURN(uint8_t * base, reserve(slot, layout.total_bytes()));
  const int64_t row_bytes = tensor::row_bytes(w.format, w.cols);
  NANOCP_RETURN_IF_ERROR(upload_rows({w.data, w.rows, row_bytes, w.stride_bytes}, base));
  if (w.format == WeightFormat::kFp8Block) {
    const float* first = w.scales + w.scale_row_offset / w.block_rows * w.scale_stride;
    const int64_t scale_row_bytes = ceil_div(w.cols, w.block_cols) * 4;
    NANOCP_RETURN_IF_ERROR(upload_rows({first, scale_rows(w), scale_row_bytes, w.scale_stride * 4},
                                       base + layout.scales_at()));
  }
  if (w.format == WeightFormat::kMxfp4) {
    NANOCP_RETURN_IF_ERROR(upload_rows(
        {w.group_scales, w.rows, w.cols / tensor::kMxfp4GroupSize, w.group_scale_stride},
        base + layout.scales_at()));
  }
  return staged_view(w, layout, base);
}

Result<WeightView> WeightUploader::stage(const WeightView& w, WeightFormat format, int slot) {
  if (w.format == format) return stage_raw(w, slot);
  NANOCP_CHECK(format == WeightFormat::kBf16);
  WeightView plain;
  plain.format = format;
  plain.rows = w.rows;
  plain.cols = w.cols;
  const StagedLayout layout = lay_out(plain);
  NANOCP_ASSIGN_OR_RETURN(uint8_t * base, reserve(slot, layout.total_bytes()));
  NANOCP_ASSIGN_OR_RETURN(const WeightView raw, stage_raw(w, kRawSlot));
  NANOCP_RETURN_IF_ERROR(cuda::launch_convert_weight(raw, base, w.cols, stream_));
  return staged_view(plain, layout, base);
}

Status WeightUploader::fill_bits(void* target, int64_t bytes, const model::BitPattern& pattern) {
  return cuda::launch_fill_bits({.data = target,
                                 .size_bytes = bytes,
                                 .keep = pattern.keep,
                                 .set = pattern.set,
                                 .seed = seed_++},
                                stream_);
}

Result<WeightView> WeightUploader::stage_dummy(const WeightView& shape, int slot) {
  const StagedLayout layout = lay_out(shape);
  NANOCP_ASSIGN_OR_RETURN(uint8_t * base, reserve(slot, layout.total_bytes()));
  uint8_t* scales = base + layout.scales_at();
  switch (shape.format) {
    case WeightFormat::kFp8Block:
      NANOCP_RETURN_IF_ERROR(
          fill_bits(base, layout.data_bytes, model::signed_values(StoredType::kF8E4m3, 0)));
      NANOCP_RETURN_IF_ERROR(fill_bits(scales, layout.scale_bytes, model::fp8_scales(shape.cols)));
      break;
    case WeightFormat::kMxfp4:
      NANOCP_RETURN_IF_ERROR(
          fill_bits(base, layout.data_bytes, model::signed_values(StoredType::kU8, 0)));
      NANOCP_RETURN_IF_ERROR(
          fill_bits(scales, layout.group_scale_bytes, model::mxfp4_scales(shape.cols)));
      break;
    default:
      NANOCP_CHECK(shape.format == WeightFormat::kBf16);
      NANOCP_RETURN_IF_ERROR(fill_random(base, shape.rows * shape.cols,
                                         1.0F / std::sqrt(static_cast<float>(shape.cols))));
  }
  return staged_view(shape, layout, base);
}

Status WeightUploader::upload_matrix(const WeightView& w, void* target) {
  if (w.rows == 0 || w.cols == 0) return ok_status();
  if (w.format == WeightFormat::kBf16) {
    return upload_rows({w.data, w.rows, w.cols * 2, w.stride_bytes}, target);
  }
  // By parts, so that staging takes little memory.
  const int64_t part_rows =
      std::max<int64_t>(1, kConvertedBytes / tensor::row_bytes(w.format, w.cols));
  for (int64_t begin = 0; begin < w.rows; begin += part_rows) {
    const WeightView part = w.row_range(begin, std::min(part_rows, w.rows - begin));
    NANOCP_ASSIGN_OR_RETURN(const WeightView raw, stage_raw(part, kRawSlot));
    NANOCP_RETURN_IF_ERROR(cuda::launch_convert_weight(
        raw, static_cast<uint16_t*>(target) + begin * w.cols, w.cols, stream_));
  }
  return ok_status();
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
