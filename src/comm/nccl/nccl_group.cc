#include "comm/nccl/nccl_group.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <future>
#include <thread>

#include "backend/cuda/cuda_status.h"
#include "comm/nccl/nccl_link.h"
#include "comm/nccl/nccl_status.h"

namespace nanocp::comm {

using cuda::cuda_status;

namespace {

constexpr std::chrono::seconds kConnectTimeout{120};
constexpr size_t kFirstMessageBytes = 256;
constexpr int kHighestFlagByte = 0xff;

// Restores the caller's device.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    static_cast<void>(cudaGetDevice(&previous_));
    static_cast<void>(cudaSetDevice(device));
  }
  ~DeviceScope() { static_cast<void>(cudaSetDevice(previous_)); }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace

struct NcclGroup::Member {
  int device = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;  // of the first messages
  void* heap = nullptr;
  void* outboxes = nullptr;   // of all other instances, one behind another
  uint8_t** bases = nullptr;  // device memory: what ExchangeView::base points to
  std::unique_ptr<NcclLink> link;

  Member() = default;
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() {
    const DeviceScope scope(device);
    link.reset();
    if (comm != nullptr) static_cast<void>(ncclCommDestroy(comm));
    if (stream != nullptr) static_cast<void>(cudaStreamDestroy(stream));
    for (void* memory : {heap, outboxes, static_cast<void*>(bases)}) {
      if (memory != nullptr) static_cast<void>(cudaFree(memory));
    }
  }
};

NcclGroup::NcclGroup(const Options& options)
    : options_(options), layout_(lay_out_exchange(options.capacity)) {
  for (const int device : options.devices) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->device = device;
  }
}

// Making communicators waits for all ranks without a deadline of its own and cannot be ended, so it
// has a thread that is left behind with the group if it does not come back.
Result<std::unique_ptr<NcclGroup>> NcclGroup::create(const Options& options) {
  NANOCP_CHECK_EQ(static_cast<int>(options.devices.size()), options.capacity.num_instances);
  std::unique_ptr<NcclGroup> group(new NcclGroup(options));
  NANOCP_RETURN_IF_ERROR(group->allocate());
  if (options.devices.size() > 1) {
    std::packaged_task<Status()> connect([&members = *group] { return members.connect_all(); });
    std::future<Status> connected = connect.get_future();
    std::thread(std::move(connect)).detach();
    if (connected.wait_for(kConnectTimeout) != std::future_status::ready) {
      static_cast<void>(group.release());
      return Error{ErrorCode::kDeadlineExceeded,
                   "NCCL did not connect " + std::to_string(options.devices.size()) +
                       " GPUs within " + std::to_string(kConnectTimeout.count()) +
                       " s; NCCL_DEBUG=INFO shows more"};
    }
    NANOCP_RETURN_IF_ERROR(connected.get());
  }
  for (InstanceId i = 0; i < options.capacity.num_instances; ++i) {
    NANOCP_RETURN_IF_ERROR(group->make_link(i));
  }
  return group;
}

// Members go side by side: some of NCCL's calls that undo things wait for all ranks.
NcclGroup::~NcclGroup() {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < members_.size(); ++i) {
    threads.emplace_back([this, i] {
      if (is_aborted()) leave(static_cast<InstanceId>(i));
      members_[i].reset();
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (abort_word_ != nullptr) static_cast<void>(cudaFreeHost(abort_word_));
  if (report_ != nullptr) static_cast<void>(cudaFreeHost(report_));
}

Status NcclGroup::allocate() {
  const unsigned flags = cudaHostAllocPortable | cudaHostAllocMapped;
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaHostAlloc(reinterpret_cast<void**>(&abort_word_), sizeof(*abort_word_), flags),
      "pinned memory of the abort word"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaHostAlloc(reinterpret_cast<void**>(&report_), sizeof(*report_), flags),
                  "pinned memory of the wait report"));
  *abort_word_ = 0;
  *report_ = {};
  for (InstanceId i = 0; i < options_.capacity.num_instances; ++i) {
    NANOCP_RETURN_IF_ERROR(allocate_member(i));
  }
  return ok_status();
}

std::vector<uint8_t*> NcclGroup::bases_of(InstanceId instance) const {
  const Member& member = *members_[static_cast<size_t>(instance)];
  std::vector<uint8_t*> bases;
  auto* next = static_cast<uint8_t*>(member.outboxes);
  for (InstanceId i = 0; i < options_.capacity.num_instances; ++i) {
    bases.push_back(i == instance ? static_cast<uint8_t*>(member.heap) : next);
    if (i != instance) next += layout_.offsets.kv_cache;
  }
  return bases;
}

Status NcclGroup::allocate_member(InstanceId instance) {
  Member& member = *members_[static_cast<size_t>(instance)];
  const DeviceScope scope(member.device);
  const auto take = [&](void** memory, int64_t bytes, const char* what) -> Status {
    if (bytes == 0) return ok_status();
    NANOCP_RETURN_IF_ERROR(cuda_status(cudaMalloc(memory, static_cast<size_t>(bytes)),
                                       std::string(what) + " of " + std::to_string(bytes >> 20) +
                                           " MiB on GPU " + std::to_string(member.device)));
    return cuda_status(cudaMemset(*memory, 0, static_cast<size_t>(bytes)), "clearing it");
  };
  const int64_t others = options_.capacity.num_instances - 1;
  NANOCP_RETURN_IF_ERROR(take(&member.heap, layout_.total_bytes, "the exchange heap and KV cache"));
  NANOCP_RETURN_IF_ERROR(
      take(&member.outboxes, others * layout_.offsets.kv_cache, "the outboxes of the exchange"));
  NANOCP_RETURN_IF_ERROR(take(reinterpret_cast<void**>(&member.bases),
                              (1 + others) * static_cast<int64_t>(sizeof(uint8_t*)),
                              "the addresses of the exchange"));
  // Stream order is what kernels wait by: all flags count as raised.
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMemset(static_cast<uint8_t*>(member.heap) + layout_.offsets.flags,
                             kHighestFlagByte, cuda::kNumFlagKinds * (1 + others) * 8),
                  "raising the flags"));
  const std::vector<uint8_t*> bases = bases_of(instance);
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMemcpy(member.bases, bases.data(), bases.size() * sizeof(uint8_t*),
                             cudaMemcpyHostToDevice),
                  "the addresses of the exchange"));
  return cuda_status(cudaStreamCreateWithFlags(&member.stream, cudaStreamNonBlocking),
                     "stream of the exchange");
}

// The first message between two GPUs makes their connection, which takes memory and waits for the
// other side; later ones only enqueue.
Status NcclGroup::connect_all() {
  std::vector<ncclComm_t> comms(members_.size());
  NANOCP_RETURN_IF_ERROR(nccl_status(
      ncclCommInitAll(comms.data(), static_cast<int>(comms.size()), options_.devices.data()),
      "ncclCommInitAll over " + std::to_string(comms.size()) + " GPUs"));
  for (size_t i = 0; i < members_.size(); ++i) members_[i]->comm = comms[i];
  NANOCP_RETURN_IF_ERROR(nccl_status(ncclGroupStart(), "ncclGroupStart"));
  Status status = ok_status();
  for (size_t i = 0; i < members_.size(); ++i) {
    for (size_t peer = 0; peer < members_.size() && status.ok(); ++peer) {
      if (peer != i) status = enqueue_first_message(i, peer);
    }
  }
  const ncclResult_t code = ncclGroupEnd();
  NANOCP_RETURN_IF_ERROR(status);
  NANOCP_RETURN_IF_ERROR(nccl_status(code, "the first messages between the GPUs"));
  for (const auto& member : members_) {
    const DeviceScope scope(member->device);
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaStreamSynchronize(member->stream), "the first messages between the GPUs"));
  }
  return ok_status();
}

// From the outbox for `peer` into the query region, which is empty as yet.
Status NcclGroup::enqueue_first_message(size_t index, size_t peer) {
  const Member& member = *members_[index];
  const std::vector<uint8_t*> bases = bases_of(static_cast<InstanceId>(index));
  const int64_t offset = layout_.offsets.query;
  const int other = static_cast<int>(peer);
  NANOCP_RETURN_IF_ERROR(nccl_status(ncclSend(bases[peer] + offset, kFirstMessageBytes, ncclUint8,
                                              other, member.comm, member.stream),
                                     "the first ncclSend"));
  return nccl_status(ncclRecv(bases[index] + offset, kFirstMessageBytes, ncclUint8, other,
                              member.comm, member.stream),
                     "the first ncclRecv");
}

Status NcclGroup::make_link(InstanceId instance) {
  Member& member = *members_[static_cast<size_t>(instance)];
  const DeviceScope scope(member.device);
  NANOCP_ASSIGN_OR_RETURN(member.link,
                          NcclLink::create(*this, {.self = instance,
                                                   .comm = member.comm,
                                                   .heap = static_cast<uint8_t*>(member.heap),
                                                   .outboxes = bases_of(instance),
                                                   .view = view(instance),
                                                   .kv_row_bytes = options_.kv_row_bytes,
                                                   .kv_staging_slot = options_.kv_staging_slot,
                                                   .timeout_us = options_.timeout_us}));
  return ok_status();
}

cuda::ExchangeView NcclGroup::view(InstanceId instance) const {
  return make_exchange_view(options_.capacity, layout_,
                            members_[static_cast<size_t>(instance)]->bases,
                            {.abort_word = abort_word_,
                             .report = report_,
                             .timeout_ns = static_cast<uint64_t>(options_.timeout_us) * 1000,
                             .self = instance});
}

ExchangeLink* NcclGroup::link(InstanceId instance) {
  return members_[static_cast<size_t>(instance)]->link.get();
}

uint64_t NcclGroup::begun(InstanceId instance) const {
  return members_[static_cast<size_t>(instance)]->link->begun();
}

void NcclGroup::abort(const std::string& message) {
  std::lock_guard lock(mutex_);
  if (abort_message_.empty()) abort_message_ = message;
  aborted_.store(true, std::memory_order_release);
}

Status NcclGroup::fail(const std::string& report) {
  {
    std::lock_guard lock(mutex_);
    if (wait_report_.empty() && abort_message_.empty()) wait_report_ = report;
    aborted_.store(true, std::memory_order_release);
  }
  return failure();
}

// Ends the GPU's sends and receives, which have neither deadline nor abort word of ours.
void NcclGroup::leave(InstanceId instance) {
  Member& member = *members_[static_cast<size_t>(instance)];
  if (member.comm == nullptr) return;
  const DeviceScope scope(member.device);
  static_cast<void>(ncclCommAbort(member.comm));
  member.comm = nullptr;
}

Status NcclGroup::failure() const {
  std::lock_guard lock(mutex_);
  if (!wait_report_.empty()) return Error{ErrorCode::kDeadlineExceeded, wait_report_};
  if (!abort_message_.empty()) return Error{ErrorCode::kAborted, abort_message_};
  return ok_status();
}

}  // namespace nanocp::comm
