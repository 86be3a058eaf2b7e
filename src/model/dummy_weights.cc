#include "model/dummy_weights.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "base/random.h"
#include "model/aligned_buffer.h"
#include "model/weight_catalogue.h"

namespace nanocp::model {
namespace {

constexpr int64_t kJobBytes = int64_t{8} << 20;

// Random bits are masked with `keep`, then `set` is added: with a fixed exponent and a random sign
// and mantissa, values are spread over +-[1, 2) x 2^exponent. No arithmetic per value.
struct BitPattern {
  uint64_t keep = 0;
  uint64_t set = 0;
};

BitPattern repeat(uint64_t keep, uint64_t set, int bits) {
  BitPattern pattern;
  for (int shift = 0; shift < 64; shift += bits) {
    pattern.keep |= keep << shift;
    pattern.set |= set << shift;
  }
  return pattern;
}

BitPattern signed_values(StoredType type, int exponent) {
  const auto biased = [exponent](int bias) { return static_cast<uint64_t>(bias + exponent); };
  switch (type) {
    case StoredType::kF32:
      return repeat(0x807fffff, biased(127) << 23, 32);
    case StoredType::kBf16:
      return repeat(0x807f, biased(127) << 7, 16);
    case StoredType::kF16:
      return repeat(0x83ff, biased(15) << 10, 16);
    case StoredType::kF8E4m3:
      return repeat(0x87, uint64_t{7} << 3, 8);
    default:
      return repeat(0xff, 0, 8);
  }
}

// Values in [1, 1.125).
BitPattern near_one(StoredType type) {
  switch (type) {
    case StoredType::kF32:
      return repeat(0x000fffff, 0x3f800000, 32);
    case StoredType::kF16:
      return repeat(0x007f, 0x3c00, 16);
    default:
      return repeat(0x000f, 0x3f80, 16);
  }
}

int exponent_for(double root_mean_square, int64_t fan_in) {
  const double wanted = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return static_cast<int>(std::lround(std::log2(wanted / root_mean_square)));
}

constexpr double kRmsOneToTwo = 1.53;  // of a uniform value in [1, 2)
constexpr double kRmsE2m1 = 2.93;      // of the sixteen e2m1 values

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
  if (entry.type == StoredType::kU8) {
    return repeat(0, static_cast<uint64_t>(127 + exponent_for(kRmsE2m1, entry.fan_in)), 8);
  }
  const int exponent = exponent_for(kRmsOneToTwo * kRmsOneToTwo, entry.fan_in);
  return repeat(0x007fffff, static_cast<uint64_t>(127 + exponent) << 23, 32);
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
