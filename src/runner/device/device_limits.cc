#include "runner/device/device_limits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

namespace nanocp::runner {
namespace {

constexpr int32_t kInstancesMax = 512;

std::string to_gb(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

std::string to_share(double share) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f", share);
  return text;
}

int64_t share_of(int64_t bytes, double share) {
  return static_cast<int64_t>(static_cast<double>(bytes) * share);
}

// What weights may take of a GPU, others that use it taken off.
int64_t allowed_bytes(const WeightRoom& room) {
  if (room.memory_utilization == 0.0) return room.free_bytes;
  const int64_t used = room.total_bytes - room.free_bytes;
  return std::max<int64_t>(0, share_of(room.total_bytes, room.memory_utilization) - used);
}

// The fewest instances whose weights fit into `allowed` bytes each; 0: no number is enough.
int32_t instances_that_fit(const model::WeightBytes& bytes, int64_t allowed) {
  for (int32_t count = 1; count <= kInstancesMax; ++count) {
    if (bytes.per_instance(count) <= allowed) return count;
  }
  return 0;
}

std::string describe_room(const WeightRoom& room) {
  std::string where =
      "GPU " + std::to_string(room.device) + " has " + to_gb(room.free_bytes) + " free";
  if (room.memory_utilization == 0.0) return where;
  return where + " of " + to_gb(room.total_bytes) + ", of which --gpu-memory-utilization " +
         to_share(room.memory_utilization) + " leaves " + to_gb(allowed_bytes(room));
}

std::string weights_remedy(const model::WeightBytes& bytes, const WeightRoom& room) {
  const int64_t needed = bytes.per_instance(room.num_instances);
  if (needed < room.free_bytes) {
    const int64_t used = room.total_bytes - room.free_bytes;
    const double share = static_cast<double>(needed + used) / static_cast<double>(room.total_bytes);
    return "use a --gpu-memory-utilization above " + to_share(std::ceil(share * 100.0) / 100.0);
  }
  const int32_t count = instances_that_fit(bytes, allowed_bytes(room));
  if (count > 0) return "use --instances " + std::to_string(count) + " or more, one GPU each";
  return "more instances do not help, since each holds " + to_gb(bytes.replicated) +
         " that are not experts: use GPUs with more memory";
}

}  // namespace

Status check_compute_capability(const backend::DeviceInfo& info) {
  if (info.compute_major == 9 && info.compute_minor == 0) return ok_status();
  return unsupported("GPU " + std::to_string(info.index) + " (" + info.name +
                     ") has compute capability " + std::to_string(info.compute_major) + "." +
                     std::to_string(info.compute_minor) +
                     "; the kernels of this build need 9.0 (H100, H200, GH200): hide it with "
                     "CUDA_VISIBLE_DEVICES or use --device cpu");
}

Status check_device_count(const std::vector<int>& devices, int num_found) {
  const auto wanted = static_cast<int>(devices.size());
  const auto missing = std::find_if(devices.begin(), devices.end(),
                                    [&](int device) { return device < 0 || device >= num_found; });
  if (missing == devices.end()) return ok_status();
  if (wanted <= num_found) {
    return not_found("GPU " + std::to_string(*missing) + " does not exist: this host shows " +
                     std::to_string(num_found) + ", counted from 0");
  }
  return not_found(std::to_string(wanted) + " instances need as many GPUs; this host shows " +
                   std::to_string(num_found) + ": use --instances " + std::to_string(num_found) +
                   " or fewer");
}

Status check_weights_fit(const model::WeightBytes& bytes, const WeightRoom& room) {
  const int64_t needed = bytes.per_instance(room.num_instances);
  if (needed <= allowed_bytes(room)) return ok_status();
  return resource_exhausted(
      "the weights do not fit: with --instances " + std::to_string(room.num_instances) +
      " each GPU holds " + to_gb(needed) + " (" + to_gb(needed - bytes.replicated) +
      " of experts), but " + describe_room(room) + "; " + weights_remedy(bytes, room));
}

Result<KvBlocks> kv_blocks_that_fit(const KvRoom& room, double memory_utilization) {
  const int64_t allowed = share_of(room.total_bytes, memory_utilization);
  const int64_t used = room.total_bytes - room.free_bytes + room.reserve_bytes;
  const int64_t kv_bytes = allowed - used + room.existing_blocks * room.block_bytes;
  const std::string how = to_gb(allowed) + " allowed (" + to_share(memory_utilization) + " of " +
                          to_gb(room.total_bytes) + ") - " + to_gb(used) + " used by weights (" +
                          to_gb(room.weight_bytes) + "), activations, exchange, graphs and others";
  if (kv_bytes >= 2 * room.block_bytes) return KvBlocks{kv_bytes / room.block_bytes, how};
  const double wanted =
      static_cast<double>(used + 2 * room.block_bytes) / static_cast<double>(room.total_bytes);
  return resource_exhausted(
      "no room for a KV cache on GPU " + std::to_string(room.device) + ": " + how + "; use " +
      (wanted < 1.0 ? "a --gpu-memory-utilization above " + to_share(wanted + 0.01) + ", " : "") +
      "more --instances or a lower --max-num-batched-tokens");
}

Status check_kv_blocks_fit(const KvRoom& room, int64_t num_blocks, int64_t exchange_bytes) {
  const int64_t most = std::max<int64_t>(0, room.free_bytes - room.reserve_bytes - exchange_bytes) /
                       room.block_bytes;
  if (num_blocks <= most) return ok_status();
  const std::string remedy =
      most < 2 ? "use more --instances or a lower --max-num-batched-tokens"
               : "use at most some " + std::to_string(most) + " (--num-kv-blocks, --kv-memory)";
  return resource_exhausted(std::to_string(num_blocks) + " KV blocks need " +
                            to_gb(num_blocks * room.block_bytes) + " on each GPU (" +
                            std::to_string(room.block_bytes) + " bytes a block), but GPU " +
                            std::to_string(room.device) + " has " + to_gb(room.free_bytes) +
                            " free beside " + to_gb(room.weight_bytes) + " of weights; " + remedy);
}

}  // namespace nanocp::runner
