#include "model/dummy_weights.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "base/random.h"
#include "model/aligned_buffer.h"
#include "model/dummy_pattern.h"
#include "model/weight_catalogue.h"

namespace nanocp::model {
namespace {

constexpr int64_t kJobBytes = int64_t{8} << 20;

// Values in [1, 1.125).
BitPattern near_one(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return repeat_bits(0x000fffff, 0x3f800000, 32);
    case StoredType::kF16:
      return repeat_bits(0x007f, 0x3c00, 16);
    default:
      return repeat_bits(0x000f, 0x3f80, 16);
  }
}

BitPattern pattern_of(const CatalogueEntry& entry) {
  switch (entry.kind) {
    case TensorKind::kEmbedding:
      return signed_values(entry.type, -1);
    case TensorKind::kNorm:
      return near_one(entry.type);
    case TensorKind::kBias:
      return signed_values(entry.type, -6);
    case TensorKind::kMatrix:
      return signed_values(entry.type, exponent_for(kRmsOneToTwo, entry.fan_in));
    case TensorKind::kScales:
      break;
  }
  return entry.type == StoredType::kU8 ? mxfp4_scales(entry.fan_in) : fp8_scales(entry.fan_in);
}

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

// Words [begin, end) of the buffer.
LoadJob fill_job(uint8_t* data, int64_t begin, int64_t end, BitPattern pattern, uint64_t seed) {
  const auto fill = [=] {
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t word =
          (counter_random(seed, static_cast<uint64_t>(i)) & pattern.keep) | pattern.set;
      std::memcpy(data + i * 8, &word, 8);
    }
  };
  return {.bytes = (end - begin) * 8, .run = fill};
}

Status check_memory(const std::vector<CatalogueEntry>& entries) {
  int64_t total_bytes = 0;
  for (const CatalogueEntry& entry : entries) total_bytes += entry.size_bytes;
  const int64_t machine_bytes = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  if (total_bytes <= machine_bytes) return ok_status();
  return resource_exhausted("dummy weights need " + std::to_string(total_bytes >> 20) +
                            " MiB, but this machine has " + std::to_string(machine_bytes >> 20) +
                            " MiB of memory; use a config with fewer layers or experts");
}

}  // namespace

Result<Checkpoint> make_dummy_checkpoint(const ModelSpec& spec, const DummyOptions& options) {
  const std::vector<CatalogueEntry> entries = list_tensors(spec);
  NANOCP_RETURN_IF_ERROR(check_memory(entries));
  Checkpoint::Tensors tensors;
  std::vector<LoadJob> jobs;
  for (const CatalogueEntry& entry : entries) {
    const auto buffer = make_aligned_buffer(entry.size_bytes);
    const int64_t num_words = (entry.size_bytes + 7) / 8;
    const BitPattern pattern = pattern_of(entry);
    const uint64_t seed = options.seed ^ hash_name(entry.name);
    for (int64_t begin = 0; begin < num_words; begin += kJobBytes / 8) {
      const int64_t end = std::min(begin + kJobBytes / 8, num_words);
      jobs.push_back(fill_job(buffer.get(), begin, end, pattern, seed));
    }
    tensors.emplace(entry.name,
                    StoredTensor{.type = entry.type,
                                 .shape = entry.shape,
                                 .bytes = {buffer.get(), static_cast<size_t>(entry.size_bytes)},
                                 .owner = buffer,
                                 .file_name = "dummy weights"});
  }
  run_load_jobs(jobs, options.num_threads, options.progress);
  return Checkpoint("dummy weights", std::move(tensors));
}

}  // namespace nanocp::model
