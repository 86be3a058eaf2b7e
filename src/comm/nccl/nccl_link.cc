#include "comm/nccl/nccl_link.h"

#include <algorithm>
#include <cstdio>
#include <limits>

#include "backend/cuda/cuda_status.h"
#include "comm/nccl/exchange_pieces.h"
#include "comm/nccl/nccl_status.h"

namespace nanocp::comm {

using cuda::cuda_status;
using cuda::WaitPurpose;

namespace {

constexpr uint64_t kHighestEpoch = std::numeric_limits<uint64_t>::max();

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

}  // namespace

Result<std::unique_ptr<NcclLink>> NcclLink::create(NcclGroup& group, const Place& place) {
  std::unique_ptr<NcclLink> link(new NcclLink(group, place));
  NANOCP_RETURN_IF_ERROR(link->allocate());
  return link;
}

NcclLink::~NcclLink() {
  if (host_memory_ != nullptr) static_cast<void>(cudaFreeHost(host_memory_));
  if (device_memory_ != nullptr) static_cast<void>(cudaFree(device_memory_));
  if (uploaded_ != nullptr) static_cast<void>(cudaEventDestroy(uploaded_));
  for (const Exchange& exchange : ring_) {
    if (exchange.event != nullptr) static_cast<void>(cudaEventDestroy(exchange.event));
  }
}

// One list gives offsets and total.
NcclLink::Tables NcclLink::lay_out(uint8_t* base, size_t* total_bytes) const {
  size_t next = 0;
  const auto take = [&]<typename T>(T*& member, size_t count) {
    member = base == nullptr ? nullptr : reinterpret_cast<T*>(base + next);
    next += align(count * sizeof(T));
  };
  const auto rows = static_cast<size_t>(place_.view.max_rows);
  const auto instances = static_cast<size_t>(place_.view.num_instances);
  Tables tables = {};
  take(tables.row_counts, 2 * instances);
  take(tables.sent_slots, rows);
  take(tables.received_slots, instances * rows);
  *total_bytes = next;
  return tables;
}

Status NcclLink::allocate() {
  lay_out(nullptr, &table_bytes_);
  const auto instances = static_cast<size_t>(place_.view.num_instances);
  const size_t kv_bytes = align(static_cast<size_t>(place_.view.max_rows * place_.kv_row_bytes));
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaHostAlloc(reinterpret_cast<void**>(&host_memory_), table_bytes_, cudaHostAllocDefault),
      "pinned memory of exchange tables"));
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaMalloc(reinterpret_cast<void**>(&device_memory_),
                                                table_bytes_ + (1 + instances) * kv_bytes),
                                     "device memory of exchange tables and new K/V"));
  size_t unused = 0;
  host_ = lay_out(host_memory_, &unused);
  device_ = lay_out(device_memory_, &unused);
  sent_kv_ = device_memory_ + table_bytes_;
  received_kv_ = sent_kv_ + kv_bytes;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventCreateWithFlags(&uploaded_, cudaEventDisableTiming),
                                     "event of exchange tables"));
  for (Exchange& exchange : ring_) {
    NANOCP_RETURN_IF_ERROR(cuda_status(
        cudaEventCreateWithFlags(&exchange.event, cudaEventDisableTiming), "exchange event"));
    exchange.partners.assign(instances, false);
  }
  const Rows none = {std::vector<int32_t>(instances), std::vector<int32_t>(instances), false};
  rows_.fill(none);
  kv_rows_ = none;
  return ok_status();
}

Status NcclLink::begin_step(std::span<const InstancePlan> plans, cudaStream_t stream) {
  NANOCP_CHECK_EQ(static_cast<int32_t>(plans.size()), place_.view.num_instances);
  if (group_.is_aborted()) return group_.failure();
  moved_on_us_ = clock_.now_us();
  NANOCP_RETURN_IF_ERROR(wait_for_upload());
  count_rows(plans);
  fill_tables(plans);
  return upload_tables(stream);
}

// The tables of the step before must have left the pinned memory.
Status NcclLink::wait_for_upload() {
  while (true) {
    const cudaError_t code = cudaEventQuery(uploaded_);
    if (code != cudaErrorNotReady) return cuda_status(code, "the upload of exchange tables");
    NANOCP_RETURN_IF_ERROR(watch());
  }
}

void NcclLink::count_rows(std::span<const InstancePlan> plans) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto purpose = static_cast<WaitPurpose>(i);
    Rows& rows = rows_[i];
    rows.any = false;
    for (InstanceId peer = 0; peer < place_.view.num_instances; ++peer) {
      if (peer == place_.self) continue;
      const int32_t sent = rows_between(purpose, place_.self, peer, plans);
      const int32_t received = rows_between(purpose, peer, place_.self, plans);
      rows.sent[static_cast<size_t>(peer)] = sent;
      rows.received[static_cast<size_t>(peer)] = received;
      rows.any = rows.any || sent > 0 || received > 0;
    }
  }
}

void NcclLink::fill_tables(std::span<const InstancePlan> plans) {
  const InstancePlan& own = plans[static_cast<size_t>(place_.self)];
  num_kv_sent_ = 0;
  num_kv_received_ = 0;
  std::vector<int64_t> begin(plans.size());  // of each source's received slots
  for (InstanceId peer = 0; peer < place_.view.num_instances; ++peer) {
    const auto at = static_cast<size_t>(peer);
    const cuda::RowCount count = {plans[at].num_rows(), 0, kHighestEpoch};
    host_.row_counts[at] = count;
    host_.row_counts[plans.size() + at] = count;
    if (peer == place_.self) continue;
    for (const int32_t row : own.kv_sends.rows(peer)) {
      host_.sent_slots[num_kv_sent_++] = place_.kv_staging_slot + row;
    }
    kv_rows_.sent[at] = static_cast<int32_t>(own.kv_sends.rows(peer).size());
    kv_rows_.received[at] = own.num_kv_receives[at];
    begin[at] = num_kv_received_;
    num_kv_received_ += own.num_kv_receives[at];
  }
  for (const KvAppend& append : own.appends) {
    if (append.source == place_.self) continue;
    const auto source = static_cast<size_t>(append.source);
    NANOCP_CHECK_LT(append.row, kv_rows_.received[source]);
    host_.received_slots[begin[source] + append.row] = append.slot;
  }
}

// The number of rows that each source dispatches is known here, so it need not travel: it counts as
// arrived for all exchanges of the step.
Status NcclLink::upload_tables(cudaStream_t stream) {
  const auto instances = static_cast<size_t>(place_.view.num_instances);
  const auto copy = [&](void* to, const void* from, size_t bytes) {
    if (bytes == 0) return ok_status();
    return cuda_status(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream),
                       "upload of exchange tables");
  };
  NANOCP_RETURN_IF_ERROR(copy(place_.heap + place_.view.offsets.row_counts, host_.row_counts,
                              2 * instances * sizeof(cuda::RowCount)));
  NANOCP_RETURN_IF_ERROR(copy(device_.sent_slots, host_.sent_slots,
                              static_cast<size_t>(num_kv_sent_) * sizeof(int64_t)));
  NANOCP_RETURN_IF_ERROR(copy(device_.received_slots, host_.received_slots,
                              static_cast<size_t>(num_kv_received_) * sizeof(int64_t)));
  return cuda_status(cudaEventRecord(uploaded_, stream), "upload of exchange tables");
}

Status NcclLink::carry(WaitPurpose purpose, uint64_t epoch, const cuda::CacheRows& cache,
                       cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(begin_exchange(purpose, epoch, stream));
  if (!moves(purpose)) return ok_status();
  if (purpose != WaitPurpose::kQuery) return send_and_receive(purpose, epoch, stream);
  NANOCP_CHECK_EQ(cuda::cache_row_bytes(cache), place_.kv_row_bytes);
  NANOCP_RETURN_IF_ERROR(
      cuda::launch_gather_cache_rows({.rows = cache,
                                      .heap = place_.heap,
                                      .slots = device_.sent_slots,
                                      .num_rows = static_cast<int32_t>(num_kv_sent_),
                                      .packed = sent_kv_},
                                     stream));
  NANOCP_RETURN_IF_ERROR(send_and_receive(purpose, epoch, stream));
  return cuda::launch_scatter_cache_rows({.rows = cache,
                                          .heap = place_.heap,
                                          .slots = device_.received_slots,
                                          .num_rows = static_cast<int32_t>(num_kv_received_),
                                          .packed = received_kv_},
                                         stream);
}

Status NcclLink::begin_exchange(WaitPurpose purpose, uint64_t epoch, cudaStream_t stream) {
  if (group_.is_aborted()) return group_.failure();  // the communicator may be gone
  NANOCP_RETURN_IF_ERROR(advance());
  while (num_enqueued_ - begun() >= kAheadMax) NANOCP_RETURN_IF_ERROR(watch());
  Exchange& next = exchange(num_enqueued_ + 1);
  next.purpose = purpose;
  next.epoch = epoch;
  next.is_recorded = moves(purpose);
  for (size_t i = 0; i < next.partners.size(); ++i) {
    next.partners[i] = rows(purpose).sent[i] > 0 || rows(purpose).received[i] > 0;
  }
  if (next.is_recorded) {
    NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventRecord(next.event, stream), "exchange event"));
  }
  ++num_enqueued_;
  return ok_status();
}

// One group, so that no order of the instances can keep them from meeting.
Status NcclLink::send_and_receive(WaitPurpose purpose, uint64_t epoch, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(nccl_status(ncclGroupStart(), "ncclGroupStart"));
  Status status = ok_status();
  for (InstanceId peer = 0; peer < place_.view.num_instances && status.ok(); ++peer) {
    if (peer == place_.self) continue;
    status = enqueue_peer(purpose, epoch, peer, stream);
    if (status.ok() && purpose == WaitPurpose::kQuery) status = enqueue_kv(peer, stream);
  }
  const ncclResult_t code = ncclGroupEnd();
  NANOCP_RETURN_IF_ERROR(status);
  return nccl_status(code, "ncclGroupEnd");
}

Status NcclLink::enqueue_peer(WaitPurpose purpose, uint64_t epoch, InstanceId peer,
                              cudaStream_t stream) {
  const auto at = static_cast<size_t>(peer);
  const int32_t num_sent = rows(purpose).sent[at];
  const int32_t num_received = rows(purpose).received[at];
  if (num_sent > 0) {
    const Pieces sent = pieces_of(purpose, epoch, place_.self, num_sent, place_.view);
    for (const Piece& piece : sent.all()) {
      NANOCP_RETURN_IF_ERROR(
          nccl_status(ncclSend(place_.outboxes[at] + piece.offset, static_cast<size_t>(piece.bytes),
                               ncclUint8, peer, place_.comm, stream),
                      "ncclSend"));
    }
  }
  if (num_received > 0) {
    const Pieces received = pieces_of(purpose, epoch, peer, num_received, place_.view);
    for (const Piece& piece : received.all()) {
      NANOCP_RETURN_IF_ERROR(
          nccl_status(ncclRecv(place_.heap + piece.offset, static_cast<size_t>(piece.bytes),
                               ncclUint8, peer, place_.comm, stream),
                      "ncclRecv"));
    }
  }
  return ok_status();
}

Status NcclLink::enqueue_kv(InstanceId peer, cudaStream_t stream) {
  const auto at = static_cast<size_t>(peer);
  const auto bytes_of = [&](int64_t num_rows) {
    return static_cast<size_t>(num_rows * place_.kv_row_bytes);
  };
  const auto begin_of = [&](const std::vector<int32_t>& counts) {
    int64_t begin = 0;
    for (size_t i = 0; i < at; ++i) begin += counts[i];
    return bytes_of(begin);
  };
  if (kv_rows_.sent[at] > 0) {
    NANOCP_RETURN_IF_ERROR(
        nccl_status(ncclSend(sent_kv_ + begin_of(kv_rows_.sent), bytes_of(kv_rows_.sent[at]),
                             ncclUint8, peer, place_.comm, stream),
                    "ncclSend of new K/V"));
  }
  if (kv_rows_.received[at] == 0) return ok_status();
  return nccl_status(
      ncclRecv(received_kv_ + begin_of(kv_rows_.received), bytes_of(kv_rows_.received[at]),
               ncclUint8, peer, place_.comm, stream),
      "ncclRecv of new K/V");
}

Status NcclLink::advance() {
  const uint64_t before = begun();
  uint64_t number = before;
  while (number < num_enqueued_) {
    const Exchange& next = exchange(number + 1);
    if (next.is_recorded) {
      const cudaError_t code = cudaEventQuery(next.event);
      if (code == cudaErrorNotReady) break;
      NANOCP_RETURN_IF_ERROR(cuda_status(code, "an exchange"));
    }
    ++number;
  }
  if (number == before) return ok_status();
  begun_.store(number, std::memory_order_relaxed);
  moved_on_us_ = clock_.now_us();
  return ok_status();
}

Status NcclLink::watch() {
  if (group_.is_aborted()) return group_.failure();
  NANOCP_RETURN_IF_ERROR(advance());
  const bool in_step = moved_on_us_ != 0;
  if (!in_step || clock_.now_us() - moved_on_us_ < place_.timeout_us) return ok_status();
  return group_.fail(describe_wait());
}

// The GPU is between the last exchange it came to that moves anything and the next one. If another
// instance that takes part in it has not come that far, this one waits for it.
std::string NcclLink::describe_wait() const {
  uint64_t number = begun();
  while (number > 0 && !exchange(number).is_recorded && num_enqueued_ - number + 1 < kRing) {
    --number;
  }
  const Exchange& last = exchange(number);
  const double seconds = static_cast<double>(place_.timeout_us) / 1e6;
  InstanceId awaited = place_.self;
  uint64_t seen = number;
  for (InstanceId peer = 0; number > 0 && peer < place_.view.num_instances; ++peer) {
    const auto at = static_cast<size_t>(peer);
    if (!last.partners[at]) continue;
    const uint64_t theirs = group_.begun(peer);
    if (theirs >= seen) continue;
    seen = theirs;
    awaited = peer;
  }
  char text[240];
  if (awaited != place_.self) {
    std::snprintf(text, sizeof(text),
                  "instance %d waited %.1f s for instance %d: %s, epoch %llu, exchange %llu, last "
                  "seen %llu",
                  place_.self, seconds, awaited, to_string(last.purpose),
                  static_cast<unsigned long long>(last.epoch),
                  static_cast<unsigned long long>(number), static_cast<unsigned long long>(seen));
  } else {
    std::snprintf(text, sizeof(text),
                  "the GPU of instance %d did not come from exchange %llu (%s, epoch %llu) to the "
                  "next one in %.1f s, and no other instance is behind it",
                  place_.self, static_cast<unsigned long long>(number), to_string(last.purpose),
                  static_cast<unsigned long long>(last.epoch), seconds);
  }
  return text;
}

}  // namespace nanocp::comm
