#include "runner/cuda/step_image.h"

#include <algorithm>

#include "backend/cuda/cuda_status.h"

namespace nanocp::runner {

Result<std::unique_ptr<StepImage>> StepImage::create(const StepCapacity& capacity) {
  std::unique_ptr<StepImage> image(new StepImage(capacity));
  image->table_bytes_ = image->lay_out(nullptr, image->host_);
  const size_t bytes = image->copy_bytes();
  const size_t host_bytes = kNumHostCopies * bytes;
  NANOCP_RETURN_IF_ERROR(
      cuda::cuda_status(cudaHostAlloc(reinterpret_cast<void**>(&image->host_memory_), host_bytes,
                                      cudaHostAllocDefault),
                        "pinned memory of step tables"));
  NANOCP_RETURN_IF_ERROR(
      cuda::cuda_status(cudaMalloc(reinterpret_cast<void**>(&image->device_memory_), bytes),
                        "device memory of step tables"));
  std::fill_n(image->host_memory_, host_bytes, uint8_t{0});
  NANOCP_RETURN_IF_ERROR(
      cuda::cuda_status(cudaMemset(image->device_memory_, 0, bytes), "clearing step tables"));
  image->lay_out(image->device_memory_, image->device_);
  image->use_copy(0);
  return image;
}

StepImage::~StepImage() {
  if (host_memory_ != nullptr) static_cast<void>(cudaFreeHost(host_memory_));
  if (device_memory_ != nullptr) static_cast<void>(cudaFree(device_memory_));
}

void StepImage::use_copy(size_t copy) {
  current_ = copy;
  source_ = host_memory_ + copy * copy_bytes();
  lay_out(source_, host_);
}

// One list gives offsets and total.
size_t StepImage::lay_out(uint8_t* base, Tables& t) const {
  size_t offset = 0;
  const auto take = [&]<typename T>(T*& member, size_t count) {
    member = base == nullptr ? nullptr : reinterpret_cast<T*>(base + offset);
    offset += (count * sizeof(T) + 255) / 256 * 256;
  };
  const auto rows = static_cast<size_t>(capacity_.max_rows);
  const auto instances = static_cast<size_t>(capacity_.num_instances);
  take(t.header, 1);
  take(t.num_attention_rows, 1);
  take(t.num_prefill, 1);
  take(t.token_ids, rows);
  take(t.positions, rows);
  take(t.kv_targets, rows);
  take(t.sample_rows, rows);
  take(t.samples, rows);
  take(t.num_sent, instances);
  take(t.num_received, instances);
  take(t.merge_begin, rows + 1);
  take(t.sends, rows * (instances - 1));
  take(t.merges, rows * (instances - 1));
  take(t.attention_rows, rows * instances);
  take(t.prefill, rows * instances);
  t.blocks = base == nullptr ? nullptr : reinterpret_cast<int32_t*>(base + offset);
  t.block_idx = t.blocks == nullptr ? nullptr : t.blocks + capacity_.num_blocks;
  t.step = {.header = t.header,
            .token_ids = t.token_ids,
            .positions = t.positions,
            .kv_targets = t.kv_targets,
            .sample_rows = t.sample_rows,
            .sends = t.sends,
            .num_sent = t.num_sent,
            .num_received = t.num_received,
            .attention_rows = t.attention_rows,
            .num_attention_rows = t.num_attention_rows,
            .blocks = t.blocks,
            .block_idx = t.block_idx,
            .merge_begin = t.merge_begin,
            .merges = t.merges};
  return offset;
}

void StepImage::fill(uint64_t step, const scheduler::StepPlan& plan, int32_t prefill_rows_min) {
  use_copy((current_ + 1) % kNumHostCopies);
  prefill_rows_min_ = prefill_rows_min;
  const InstancePlan& own = plan.instances[static_cast<size_t>(capacity_.self)];
  NANOCP_CHECK(own.num_rows() <= capacity_.max_rows);
  host_.header->step = step;
  host_.header->num_rows = own.num_rows();
  host_.header->num_samples = static_cast<int32_t>(own.sample_rows.size() + own.score_rows.size());
  fill_rows(own);
  fill_kv_targets(plan);
  fill_sends(own);
  fill_attention(own);
}

void StepImage::fill_rows(const InstancePlan& own) {
  std::copy(own.token_ids.begin(), own.token_ids.end(), host_.token_ids);
  for (const UnreadToken& unread : own.unread_tokens) {
    NANOCP_CHECK_EQ(unread.source, capacity_.self);
    host_.token_ids[unread.row] = -1 - unread.sample;
  }
  std::copy(own.positions.begin(), own.positions.end(), host_.positions);
  int32_t* end = std::copy(own.sample_rows.begin(), own.sample_rows.end(), host_.sample_rows);
  std::copy(own.score_rows.begin(), own.score_rows.end(), end);
}

// The plan lists appends where they are stored; here each row writes its own, wherever that is.
void StepImage::fill_kv_targets(const scheduler::StepPlan& plan) {
  const InstancePlan& own = plan.instances[static_cast<size_t>(capacity_.self)];
  std::fill_n(host_.kv_targets, own.num_rows(), cuda::KvTarget{-1, capacity_.self, 0});
  for (InstanceId holder = 0; holder < capacity_.num_instances; ++holder) {
    for (const KvAppend& append : plan.instances[static_cast<size_t>(holder)].appends) {
      if (append.source != capacity_.self) continue;
      const int32_t row = holder == capacity_.self
                              ? append.row
                              : own.kv_sends.rows(holder)[static_cast<size_t>(append.row)];
      const bool is_staged = holder != capacity_.self && capacity_.kv_staging_slot >= 0;
      host_.kv_targets[row] =
          is_staged ? cuda::KvTarget{capacity_.kv_staging_slot + row, capacity_.self, 0}
                    : cuda::KvTarget{append.slot, holder, 0};
    }
  }
}

void StepImage::fill_sends(const InstancePlan& own) {
  int32_t num_sends = 0;
  int32_t* begin = host_.merge_begin;
  std::fill_n(begin, own.num_rows() + 1, 0);
  for (InstanceId to = 0; to < capacity_.num_instances; ++to) {
    const auto rows = own.query_sends.rows(to);
    host_.num_sent[to] = static_cast<int32_t>(rows.size());
    host_.num_received[to] = own.num_query_receives[static_cast<size_t>(to)];
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      host_.sends[num_sends++] = {rows[slot], to, static_cast<int32_t>(slot)};
      ++begin[rows[slot] + 1];
    }
  }
  host_.header->num_sends = num_sends;
  for (int32_t row = 0; row < own.num_rows(); ++row) begin[row + 1] += begin[row];
  // Sends lie by rising destination, so each row's entries do too.
  for (int32_t i = 0; i < num_sends; ++i) {
    const cuda::QuerySend& send = host_.sends[i];
    host_.merges[begin[send.row]++] = {send.destination, send.slot};
  }
  for (int32_t row = own.num_rows(); row > 0; --row) begin[row] = begin[row - 1];
  begin[0] = 0;
}

void StepImage::fill_attention(const InstancePlan& own) {
  num_blocks_used_ = 0;
  *host_.num_attention_rows = 0;
  *host_.num_prefill = 0;
  has_item_.assign(static_cast<size_t>(own.num_rows()), false);
  for (const AttentionItem& item : own.items) {
    if (item.source != capacity_.self) continue;
    add_item(item);
    std::fill_n(has_item_.begin() + item.row_begin, item.num_rows, true);
  }
  // Rows that see nothing here still need a neutral result to merge the others into.
  for (int32_t row = 0; row < own.num_rows(); ++row) {
    if (has_item_[static_cast<size_t>(row)]) continue;
    host_.attention_rows[(*host_.num_attention_rows)++] = {row, 0, 0, 0, capacity_.self};
  }
  for (InstanceId source = 0; source < capacity_.num_instances; ++source) {
    if (source == capacity_.self) continue;
    for (const AttentionItem& item : own.items) {
      if (item.source == source) add_item(item);
    }
  }
  host_.header->num_attention_rows = *host_.num_attention_rows;
}

void StepImage::add_item(const AttentionItem& item) {
  const auto num_blocks = static_cast<int32_t>(item.blocks.size());
  const int32_t block_begin = num_blocks_used_;
  NANOCP_CHECK(block_begin + num_blocks <= capacity_.num_blocks);
  std::copy(item.blocks.begin(), item.blocks.end(), host_.blocks + block_begin);
  std::copy(item.block_idx.begin(), item.block_idx.end(), host_.block_idx + block_begin);
  num_blocks_used_ += num_blocks;
  const int32_t row_begin =
      item.row_begin + (item.source == capacity_.self ? 0 : (1 + item.source) * capacity_.max_rows);
  if (prefill_rows_min_ > 0 && item.num_rows >= prefill_rows_min_) {
    host_.prefill[(*host_.num_prefill)++] = {row_begin,   item.num_rows, item.first_position,
                                             block_begin, num_blocks,    item.source};
    return;
  }
  for (int32_t i = 0; i < item.num_rows; ++i) {
    host_.attention_rows[(*host_.num_attention_rows)++] = {row_begin + i, item.first_position + i,
                                                           block_begin, num_blocks, item.source};
  }
}

// Each copy delays the step by some microseconds, so one takes all where that is not much more than
// what is used; otherwise the used parts of both block tables go in a second copy of two lines.
Status StepImage::upload(cudaStream_t stream) {
  constexpr size_t kSmallBytes = size_t{96} << 10;
  const bool is_small = copy_bytes() <= kSmallBytes;
  NANOCP_RETURN_IF_ERROR(cuda::cuda_status(
      cudaMemcpyAsync(device_memory_, source_, is_small ? copy_bytes() : table_bytes_,
                      cudaMemcpyHostToDevice, stream),
      "upload of step tables"));
  const size_t used = static_cast<size_t>(num_blocks_used_) * sizeof(int32_t);
  if (used == 0 || is_small) return ok_status();
  return cuda::cuda_status(
      cudaMemcpy2DAsync(device_memory_ + table_bytes_, block_bytes(), source_ + table_bytes_,
                        block_bytes(), used, 2, cudaMemcpyHostToDevice, stream),
      "upload of block tables");
}

}  // namespace nanocp::runner
