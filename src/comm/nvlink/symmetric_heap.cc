#include "comm/nvlink/symmetric_heap.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <nccl_device.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "comm/nvlink/peer_addresses.h"

namespace nanocp::comm {
namespace {

Status check(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return ok_status();
  static_cast<void>(cudaGetLastError());
  const ErrorCode kind =
      code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return Error{kind, what + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")"};
}

Status check(ncclResult_t code, const std::string& what) {
  if (code == ncclSuccess) return ok_status();
  return Error{ErrorCode::kInternal,
               what + ": " + ncclGetErrorString(code) + "; NCCL_DEBUG=WARN shows more"};
}

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

Status check_peers(const std::vector<int>& devices) {
  for (const int from : devices) {
    for (const int to : devices) {
      if (from == to) continue;
      int reaches = 0;
      NANOCP_RETURN_IF_ERROR(
          check(cudaDeviceCanAccessPeer(&reaches, from, to), "cudaDeviceCanAccessPeer"));
      if (reaches == 0) {
        return unsupported("GPU " + std::to_string(from) + " does not reach the memory of GPU " +
                           std::to_string(to) +
                           ": instances need GPUs of one host that are linked by NVLink or allow "
                           "peer access");
      }
    }
  }
  return ok_status();
}

Status clear(void* heap, const ExchangeLayout& layout) {
  NANOCP_RETURN_IF_ERROR(check(cudaMemset(heap, 0, static_cast<size_t>(layout.total_bytes)),
                               "clearing the exchange heap"));
  return check(cudaMemset(static_cast<uint8_t*>(heap) + layout.offsets.combine,
                          cuda::kNotArrivedByte, static_cast<size_t>(layout.combine_bytes)),
               "clearing the exchange heap");
}

}  // namespace

struct NvlinkGroup::Member {
  int device = 0;
  ncclComm_t comm = nullptr;
  ncclDevComm_t device_comm = {};
  bool has_device_comm = false;
  void* heap = nullptr;
  ncclWindow_t window = nullptr;
  uint8_t** peers = nullptr;  // device memory
  Status status = ok_status();

  Member() = default;
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;
  ~Member() {
    const DeviceScope scope(device);
    if (peers != nullptr) static_cast<void>(cudaFree(peers));
    if (comm == nullptr) {
      if (heap != nullptr) static_cast<void>(cudaFree(heap));
      return;
    }
    if (window != nullptr) static_cast<void>(ncclCommWindowDeregister(comm, window));
    if (has_device_comm) static_cast<void>(ncclDevCommDestroy(comm, &device_comm));
    if (heap != nullptr) static_cast<void>(ncclMemFree(heap));
    static_cast<void>(ncclCommDestroy(comm));
  }
};

NvlinkGroup::NvlinkGroup(const Options& options)
    : options_(options), layout_(lay_out_exchange(options.capacity)) {
  for (const int device : options.devices) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->device = device;
  }
}

Result<std::unique_ptr<NvlinkGroup>> NvlinkGroup::create(const Options& options) {
  NANOCP_CHECK_EQ(static_cast<int>(options.devices.size()), options.capacity.num_instances);
  std::unique_ptr<NvlinkGroup> group(new NvlinkGroup(options));
  NANOCP_RETURN_IF_ERROR(group->allocate());
  return group;
}

// Members go side by side: some of NCCL's calls that undo things wait for all ranks.
NvlinkGroup::~NvlinkGroup() {
  std::vector<std::thread> threads;
  for (auto& member : members_) threads.emplace_back([&member] { member.reset(); });
  for (std::thread& thread : threads) thread.join();
  if (abort_word_ != nullptr) static_cast<void>(cudaFreeHost(abort_word_));
  if (report_ != nullptr) static_cast<void>(cudaFreeHost(report_));
}

Status NvlinkGroup::allocate() {
  NANOCP_RETURN_IF_ERROR(allocate_words());
  if (members_.size() == 1) return allocate_single();
  return connect_all();
}

Status NvlinkGroup::allocate_words() {
  const unsigned flags = cudaHostAllocPortable | cudaHostAllocMapped;
  NANOCP_RETURN_IF_ERROR(
      check(cudaHostAlloc(reinterpret_cast<void**>(&abort_word_), sizeof(*abort_word_), flags),
            "pinned memory of the abort word"));
  NANOCP_RETURN_IF_ERROR(
      check(cudaHostAlloc(reinterpret_cast<void**>(&report_), sizeof(*report_), flags),
            "pinned memory of the wait report"));
  *abort_word_ = 0;
  *report_ = {};
  return ok_status();
}

Status NvlinkGroup::allocate_single() {
  Member& member = *members_[0];
  const DeviceScope scope(member.device);
  const auto bytes = static_cast<size_t>(layout_.total_bytes);
  NANOCP_RETURN_IF_ERROR(check(cudaMalloc(&member.heap, bytes),
                               "exchange heap and KV cache of " + std::to_string(bytes >> 20) +
                                   " MiB on GPU " + std::to_string(member.device)));
  NANOCP_RETURN_IF_ERROR(clear(member.heap, layout_));
  NANOCP_RETURN_IF_ERROR(check(
      cudaMalloc(reinterpret_cast<void**>(&member.peers), sizeof(uint8_t*)), "peer addresses"));
  return check(cudaMemcpy(member.peers, &member.heap, sizeof(uint8_t*), cudaMemcpyHostToDevice),
               "peer addresses");
}

Status NvlinkGroup::connect_all() {
  NANOCP_RETURN_IF_ERROR(check_peers(options_.devices));
  std::vector<ncclComm_t> comms(members_.size());
  NANOCP_RETURN_IF_ERROR(
      check(ncclCommInitAll(comms.data(), static_cast<int>(comms.size()), options_.devices.data()),
            "ncclCommInitAll over " + std::to_string(comms.size()) + " GPUs"));
  for (size_t i = 0; i < members_.size(); ++i) members_[i]->comm = comms[i];
  // The calls that follow wait for all ranks, so each rank makes them from a thread of its own.
  std::vector<std::thread> threads;
  for (size_t i = 0; i < members_.size(); ++i) {
    threads.emplace_back([this, i] { members_[i]->status = connect(i); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& member : members_) NANOCP_RETURN_IF_ERROR(member->status);
  return ok_status();
}

Status NvlinkGroup::connect(size_t index) {
  Member& member = *members_[index];
  NANOCP_RETURN_IF_ERROR(check(cudaSetDevice(member.device), "cudaSetDevice"));
  const auto bytes = static_cast<size_t>(layout_.total_bytes);
  const std::string where = " on GPU " + std::to_string(member.device);
  // First, since it is the call that fails properly where the device API is not served.
  ncclDevCommRequirements_t requirements = {};
  NANOCP_RETURN_IF_ERROR(check(ncclDevCommCreate(member.comm, &requirements, &member.device_comm),
                               "ncclDevCommCreate" + where));
  member.has_device_comm = true;
  const auto num_ranks = static_cast<int32_t>(members_.size());
  if (member.device_comm.lsaSize != num_ranks) {
    return unsupported("NCCL reaches the memory of " + std::to_string(member.device_comm.lsaSize) +
                       " of " + std::to_string(num_ranks) + " GPUs from GPU " +
                       std::to_string(member.device) + ": all must be linked by NVLink");
  }
  NANOCP_RETURN_IF_ERROR(check(ncclMemAlloc(&member.heap, bytes),
                               "ncclMemAlloc of " + std::to_string(bytes >> 20) + " MiB" + where));
  NANOCP_RETURN_IF_ERROR(clear(member.heap, layout_));
  NANOCP_RETURN_IF_ERROR(
      check(ncclCommWindowRegister(member.comm, member.heap, bytes, &member.window, /*winFlags=*/0),
            "ncclCommWindowRegister of " + std::to_string(bytes >> 20) + " MiB" + where));
  if (member.window == nullptr) {
    return unsupported("NCCL gave no window for the exchange heap" + where +
                       ": it needs memory that peers can map (cuMem), see NCCL_CUMEM_ENABLE");
  }
  NANOCP_RETURN_IF_ERROR(
      check(cudaMalloc(reinterpret_cast<void**>(&member.peers), members_.size() * sizeof(uint8_t*)),
            "peer addresses"));
  NANOCP_RETURN_IF_ERROR(launch_resolve_peers(member.window, num_ranks, member.peers, nullptr));
  return check(cudaDeviceSynchronize(), "address query" + where);
}

cuda::ExchangeView NvlinkGroup::view(InstanceId instance) const {
  return make_exchange_view(options_.capacity, layout_,
                            members_[static_cast<size_t>(instance)]->peers,
                            {.abort_word = abort_word_,
                             .report = report_,
                             .timeout_ns = static_cast<uint64_t>(options_.timeout_us) * 1000,
                             .self = instance});
}

void NvlinkGroup::abort(const std::string& message) {
  std::lock_guard lock(mutex_);
  if (abort_message_.empty()) abort_message_ = message;
  *static_cast<volatile int32_t*>(abort_word_) = 1;
}

Status NvlinkGroup::failure() const {
  std::lock_guard lock(mutex_);
  const volatile cuda::WaitReport* report = report_;
  if (report->state != 0) {
    char text[200];
    std::snprintf(text, sizeof(text),
                  "instance %d waited %.1f s for instance %d: %s, epoch %llu, last seen %llu",
                  report->waiter, static_cast<double>(options_.timeout_us) / 1e6, report->awaited,
                  to_string(report->purpose), static_cast<unsigned long long>(report->epoch),
                  static_cast<unsigned long long>(report->seen));
    return Error{ErrorCode::kDeadlineExceeded, text};
  }
  if (!abort_message_.empty()) return Error{ErrorCode::kAborted, abort_message_};
  return ok_status();
}

}  // namespace nanocp::comm
