// Kernels that prepare attention: `--check` compares random rows with the plain references in ops/,
// `--time` measures launches inside a graph. The instances of the exchange are heaps in the memory
// of all GPUs that there are, compared in full: what must not be written must have stayed.
#include <cstring>

#include "backend/cuda/attention_inputs.h"
#include "bench/kernels/cuda_attention_inputs_bench_data.h"
#include "bench/kernels/cuda_query_order_check.h"
#include "ops/norm.h"
#include "ops/rotary.h"
#include "tensor/kv_format.h"

namespace nanocp::bench {
namespace {

using cuda::CacheType;

constexpr float kEps = 1e-6F;
// What queries and flags of all heaps must be: rows of `q` [num_rows, query_values].
bool check_queries(const std::string& what, const Heaps& heaps, const Step& step,
                   const std::vector<float>& q, int num_rows, uint64_t epoch) {
  const cuda::ExchangeView& view = heaps.view();
  const std::vector<uint8_t> bytes = heaps.to_host();
  bool passed = true;
  for (int i = 0; i < view.num_instances; ++i) {
    const int64_t count = int64_t{1 + view.num_instances} * view.max_rows * view.query_values;
    std::vector<float> want(static_cast<size_t>(count), NAN);
    const auto put = [&](int64_t to, int row) {
      std::copy_n(q.begin() + int64_t{row} * view.query_values, view.query_values,
                  want.begin() + to * view.query_values);
    };
    for (int r = 0; i == kSelf && r < num_rows; ++r) put(r, r);
    for (const cuda::QuerySend& send : step.sends) {
      if (send.destination == i) put((1 + kSelf) * view.max_rows + send.slot, send.row);
    }
    passed &= agree(what + " queries of heap " + std::to_string(i),
                    Heaps::values(bytes, i * heaps.size() + view.offsets.query, count), want,
                    {1.0 / 150, 2e-3});
    std::vector<uint64_t> flags(cuda::kNumFlagKinds * view.num_instances);
    std::memcpy(flags.data(), bytes.data() + i * heaps.size() + view.offsets.flags,
                flags.size() * sizeof(uint64_t));
    for (size_t f = 0; f < flags.size(); ++f) {
      const uint64_t wanted = f == kSelf && step.num_sent[i] > 0 ? epoch : 0;
      if (flags[f] == wanted) continue;
      std::printf("check %s: flag %zu of heap %d is %llu FAILED\n", what.c_str(), f, i,
                  static_cast<unsigned long long>(flags[f]));
      passed = false;
    }
  }
  return passed;
}

// --- grouped queries

struct GqaCase {
  int heads, kv_heads, dim, num_rows, instances;
  bool norm, bias;
  int rotary_dim;
  bool interleaved;
  CacheType type;
};

// The reference: q, k and v of all rows.
struct GqaReference {
  std::vector<float> q, k, v;
};

GqaReference gqa_reference(const GqaCase& c, const Step& step, const ops::RotarySpec& rotary,
                           const std::vector<float>& qkv, int stride,
                           const std::vector<float>& bias, const std::vector<float>& q_norm,
                           const std::vector<float>& k_norm) {
  GqaReference out;
  ops::RotaryTable table(rotary);
  table.prepare(std::span<const int32_t>(step.positions).first(c.num_rows));
  int first = 0;
  const auto take = [&](int heads, const std::vector<float>* norm) {
    const int width = heads * c.dim;
    std::vector<float> part(static_cast<size_t>(c.num_rows) * width);
    for (int r = 0; r < c.num_rows; ++r) {
      for (int i = 0; i < width; ++i) {
        part[static_cast<size_t>(r) * width + i] =
            qkv[static_cast<size_t>(r) * stride + first + i] + (c.bias ? bias[first + i] : 0.0F);
      }
    }
    first += width;
    const tensor::Matrix matrix = {part.data(), c.num_rows, width, width};
    if (norm != nullptr) {
      if (c.norm) ops::rms_norm_heads(matrix, heads, *norm, kEps);
      table.apply(matrix, {heads, c.dim, 0});
    }
    return part;
  };
  out.q = take(c.heads, &q_norm);
  out.k = take(c.kv_heads, &k_norm);
  out.v = take(c.kv_heads, nullptr);
  return out;
}

// The value at an index of a cache; NaN where nothing has been written, and for exponents that
// belong to values.
float decode(int kv_heads, int dim, const cuda::CacheLayout& layout, const uint8_t* cache,
             int64_t index) {
  if (layout.type == CacheType::kBf16) {
    uint16_t code;
    std::memcpy(&code, cache + 2 * index, sizeof(code));
    return tensor::decode_bf16(code);
  }
  const int64_t in_block = index % layout.block_stride;
  const int64_t num_codes = int64_t{kv_heads} * layout.block_size * dim;
  const uint8_t* block = cache + index - in_block;
  if (in_block < num_codes) {  // the exponents of all heads' tokens follow in their order
    if (cache[index] == 0xff) return NAN;
    return tensor::decode_e4m3(cache[index]) * tensor::kv_scale(block[num_codes + in_block / dim]);
  }
  const int64_t token = in_block - num_codes;
  const bool has_values =
      token < int64_t{kv_heads} * layout.block_size && block[token * dim] != 0xff;
  return has_values || cache[index] == 0xff ? NAN : static_cast<float>(cache[index]);
}

// One of K and V in all heaps: [kv_heads, num_blocks * kBlockSize, dim], blocks within heads.
bool check_cache(const char* what, const GqaCase& c, const Heaps& heaps, const Step& step,
                 int64_t offset, const cuda::CacheLayout& layout, const std::vector<float>& rows) {
  const std::vector<uint8_t> bytes = heaps.to_host();
  bool passed = true;
  for (int i = 0; i < c.instances; ++i) {
    const int64_t count = kNumBlocks * layout.block_stride;
    std::vector<float> want(static_cast<size_t>(count), NAN), got(want);
    for (int r = 0; r < c.num_rows; ++r) {
      const cuda::KvTarget& target = step.targets[r];
      if (target.instance != i || target.slot < 0) continue;
      for (int h = 0; h < c.kv_heads; ++h) {
        const int64_t to = target.slot / kBlockSize * layout.block_stride + h * layout.head_stride +
                           target.slot % kBlockSize * c.dim;
        std::copy_n(rows.begin() + (int64_t{r} * c.kv_heads + h) * c.dim, c.dim, want.begin() + to);
      }
    }
    for (int64_t at = 0; at < count; ++at) {
      got[at] = decode(c.kv_heads, c.dim, layout, bytes.data() + i * heaps.size() + offset, at);
    }
    const Tolerance tolerance =
        layout.type == CacheType::kE4m3 ? Tolerance{1.0 / 14, 1e-3} : Tolerance{1.0 / 150, 2e-3};
    passed &= agree(std::string(what) + " of heap " + std::to_string(i), got, want, tolerance);
  }
  return passed;
}

cuda::CacheLayout make_layout(const GqaCase& c, int64_t base) {
  cuda::CacheLayout layout;
  layout.block_size = kBlockSize;
  const auto format = c.type == CacheType::kE4m3 ? tensor::KvFormat::kFp8 : tensor::KvFormat::kBf16;
  layout.head_stride = int64_t{kBlockSize} * c.dim;
  layout.block_stride = c.kv_heads * kBlockSize * tensor::kv_token_values(format, c.dim) + 64;
  layout.type = c.type;
  layout.k_offset = base + 4096;
  layout.v_offset =
      layout.k_offset + kNumBlocks * layout.block_stride * (c.type == CacheType::kE4m3 ? 1 : 2);
  return layout;
}

bool check_gqa(const GqaCase& c, Random& random) {
  const int bucket = c.num_rows + 3;
  const int width = (c.heads + 2 * c.kv_heads) * c.dim;
  const int stride = width + 8;
  const Bf16Values qkv(static_cast<size_t>(bucket) * stride, 2.0F, random);
  const auto bias = random_floats(width, -1, 1, random);
  const auto q_norm = random_floats(c.dim, 0.5, 1.5, random);
  const auto k_norm = random_floats(c.dim, 0.5, 1.5, random);
  const Rotation rotation({.rotary_dim = c.rotary_dim,
                           .theta = 1e6,
                           .interleaved = c.interleaved,
                           .cos_sin_scale = c.interleaved ? 1.25 : 1.0});
  const Step step(c.num_rows, bucket, c.instances, random);
  const auto cache_bytes = int64_t{8} * kNumBlocks * (c.kv_heads * kBlockSize * c.dim + 64);
  const Heaps heaps(c.instances, bucket, c.heads * c.dim, cache_bytes);
  const DeviceArray<__nv_bfloat16> d_qkv(qkv.bf16);
  const DeviceArray<float> d_bias(bias), d_q_norm(q_norm), d_k_norm(k_norm);
  const DeviceArray<uint32_t> counter(std::vector<uint32_t>{0});
  cuda::PrepareGqaArgs args = {.step = step.device,
                               .exchange = heaps.view(),
                               .epoch = {&step.device.header->step, 3, 0},
                               .rows = bucket,
                               .num_heads = c.heads,
                               .num_kv_heads = c.kv_heads,
                               .head_dim = c.dim,
                               .qkv = d_qkv.data(),
                               .qkv_stride = stride,
                               .bias = c.bias ? d_bias.data() : nullptr,
                               .q_norm = c.norm ? d_q_norm.data() : nullptr,
                               .k_norm = c.norm ? d_k_norm.data() : nullptr,
                               .norm_eps = kEps,
                               .rotary = rotation.view(),
                               .cache = make_layout(c, heaps.view().offsets.kv_cache),
                               .counter = counter.data()};
  for (int i = 0; i < 3; ++i) {
    args.epoch.index = i;
    CHECK_STATUS(cuda::launch_prepare_gqa(args, nullptr));
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  const GqaReference want =
      gqa_reference(c, step, rotation.spec, qkv.as_float, stride, bias, q_norm, k_norm);
  bool passed = check_queries("gqa", heaps, step, want.q, c.num_rows, 6 * 3 + 2 + 1);
  passed &= check_cache("keys", c, heaps, step, args.cache.k_offset, args.cache, want.k);
  passed &= check_cache("values", c, heaps, step, args.cache.v_offset, args.cache, want.v);
  passed &= counter.to_host()[0] == 0;
  std::printf(
      "check gqa %2d/%d x %3d, %3d rows, %d instances, %3zu sends, norm %d bias %d rotary "
      "%3d%s %s: %s\n",
      c.heads, c.kv_heads, c.dim, c.num_rows, c.instances, step.sends.size(), c.norm, c.bias,
      c.rotary_dim, c.interleaved ? "i" : "n", c.type == CacheType::kE4m3 ? "e4m3" : "bf16",
      passed ? "ok" : "FAILED");
  return passed;
}

// --- latent attention

struct MlaCase {
  int heads, q_rank, num_rows, instances;
  bool interleaved;
  CacheType type = CacheType::kBf16;
};
constexpr int kRank = 512;
constexpr int kRope = 64;
constexpr int kNope = 128;

cuda::CacheLayout make_latent_layout(CacheType type, int64_t offset, int64_t gap) {
  const auto format = type == CacheType::kE4m3 ? tensor::KvFormat::kFp8 : tensor::KvFormat::kBf16;
  cuda::CacheLayout layout;
  layout.k_offset = offset;
  layout.block_size = kBlockSize;
  layout.block_stride = kBlockSize * tensor::kv_token_values(format, kRank + kRope) + gap;
  layout.type = type;
  return layout;
}

// What the caches of all heaps must be: the latents of `all`, a row's last values.
bool check_latent_caches(const MlaCase& c, const Step& step, const Heaps& heaps,
                         const cuda::CacheLayout& layout, const tensor::Matrix& all) {
  constexpr int kWidth = kRank + kRope;
  const std::vector<uint8_t> bytes = heaps.to_host();
  bool passed = true;
  for (int i = 0; i < c.instances; ++i) {
    std::vector<float> want(static_cast<size_t>(kNumBlocks * layout.block_stride), NAN), got(want);
    for (int r = 0; r < c.num_rows; ++r) {
      const cuda::KvTarget& target = step.targets[r];
      if (target.instance != i || target.slot < 0) continue;
      std::copy_n(all.row(r) + c.q_rank, kWidth,
                  want.begin() + target.slot / kBlockSize * layout.block_stride +
                      target.slot % kBlockSize * kWidth);
    }
    const uint8_t* cache = bytes.data() + i * heaps.size() + layout.k_offset;
    for (size_t at = 0; at < got.size(); ++at) {
      got[at] = decode(1, kWidth, layout, cache, static_cast<int64_t>(at));
    }
    const Tolerance tolerance =
        layout.type == CacheType::kE4m3 ? Tolerance{1.0 / 14, 1e-3} : Tolerance{1.0 / 150, 2e-3};
    passed &= agree("latent cache of heap " + std::to_string(i), got, want, tolerance);
  }
  return passed;
}

// The latents' norms and the rotary key, from rows [q latent, KV latent, rotary key].
bool check_mla_latent(const MlaCase& c, const Step& step, const Heaps& heaps,
                      const Rotation& rotation, Random& random) {
  const int bucket = c.num_rows + 3;
  const int width = c.q_rank + kRank + kRope;
  Bf16Values latents(static_cast<size_t>(bucket) * width, 2.0F, random);
  const auto kv_norm = random_floats(kRank, 0.5, 1.5, random);
  const auto q_norm = random_floats(c.q_rank, 0.5, 1.5, random);
  const DeviceArray<__nv_bfloat16> d_latents(latents.bf16);
  const DeviceArray<__nv_bfloat16> q_latent(static_cast<size_t>(bucket) * c.q_rank);
  const DeviceArray<float> d_kv_norm(kv_norm), d_q_norm(q_norm);
  const cuda::CacheLayout layout =
      make_latent_layout(c.type, heaps.view().offsets.kv_cache + 512, 32);
  CHECK_STATUS(cuda::launch_prepare_mla_latent({.step = step.device,
                                                .exchange = heaps.view(),
                                                .rows = bucket,
                                                .latents = d_latents.data(),
                                                .row_stride = width,
                                                .kv_column = c.q_rank,
                                                .q_column = 0,
                                                .kv_rank = kRank,
                                                .rope_dim = kRope,
                                                .q_rank = c.q_rank,
                                                .kv_norm = d_kv_norm.data(),
                                                .q_norm = d_q_norm.data(),
                                                .norm_eps = kEps,
                                                .rotary = rotation.view(),
                                                .cache = layout,
                                                .q_latent = q_latent.data()},
                                               nullptr));
  ops::RotaryTable table(rotation.spec);
  table.prepare(std::span<const int32_t>(step.positions).first(c.num_rows));
  const tensor::Matrix all = {latents.as_float.data(), c.num_rows, width, width};
  const tensor::Matrix kv = all.columns(c.q_rank, kRank);
  ops::rms_norm(kv, kv_norm, kEps, kv);
  table.apply(all, {1, 0, c.q_rank + kRank});
  std::vector<float> want_q(static_cast<size_t>(bucket) * c.q_rank, NAN);
  if (c.q_rank > 0) {
    ops::rms_norm(all.columns(0, c.q_rank), q_norm, kEps,
                  {want_q.data(), c.num_rows, c.q_rank, c.q_rank});
  }
  const bool passed = agree("query latent", to_floats(q_latent.to_host()), want_q, kBf16Tolerance);
  return check_latent_caches(c, step, heaps, layout, all) && passed;
}

bool check_mla_query(const MlaCase& c, const Step& step, const Heaps& heaps,
                     const Rotation& rotation, Random& random) {
  const int bucket = c.num_rows + 3;
  const int width = c.heads * (kNope + kRope);
  Bf16Values q(static_cast<size_t>(bucket) * width, 2.0F, random);
  const DeviceArray<__nv_bfloat16> d_q(q.bf16);
  const DeviceArray<uint32_t> counter(std::vector<uint32_t>{0});
  // The absorbed part, which a product writes.
  const int query_values = heaps.view().query_values;
  const Bf16Values absorbed(static_cast<size_t>(c.num_rows) * query_values, 1.0F, random);
  CHECK_CUDA(cudaMemcpy(heaps.own_base() + heaps.view().offsets.query, absorbed.bf16.data(),
                        absorbed.bf16.size() * 2, cudaMemcpyHostToDevice));
  CHECK_STATUS(cuda::launch_prepare_mla_query({.step = step.device,
                                               .exchange = heaps.view(),
                                               .rows = bucket,
                                               .num_heads = c.heads,
                                               .nope_dim = kNope,
                                               .rope_dim = kRope,
                                               .kv_rank = kRank,
                                               .q = d_q.data(),
                                               .q_stride = width,
                                               .rotary = rotation.view()},
                                              nullptr));
  for (int i = 0; i < 2; ++i) {
    CHECK_STATUS(cuda::launch_send_queries({.step = step.device,
                                            .exchange = heaps.view(),
                                            .epoch = {&step.device.header->step, 2, i},
                                            .rows = bucket,
                                            .counter = counter.data()},
                                           nullptr));
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  ops::RotaryTable table(rotation.spec);
  table.prepare(std::span<const int32_t>(step.positions).first(c.num_rows));
  table.apply({q.as_float.data(), c.num_rows, width, width}, {c.heads, kNope + kRope, kNope});
  std::vector<float> want = absorbed.as_float;
  for (int r = 0; r < c.num_rows; ++r) {
    for (int h = 0; h < c.heads; ++h) {
      std::copy_n(q.as_float.begin() + int64_t{r} * width + h * (kNope + kRope) + kNope, kRope,
                  want.begin() + int64_t{r} * query_values + h * (kRank + kRope) + kRank);
    }
  }
  return check_queries("mla", heaps, step, want, c.num_rows, 6 * 2 + 1 + 1) &&
         counter.to_host()[0] == 0;
}

bool check_mla(const MlaCase& c, Random& random) {
  const Rotation rotation(
      {.rotary_dim = kRope, .theta = 1e4, .interleaved = c.interleaved, .cos_sin_scale = 1.1});
  const Step step(c.num_rows, c.num_rows + 3, c.instances, random);
  const int64_t cache_bytes = 1024 + int64_t{2} * kNumBlocks * (kBlockSize * 576 + 32);
  const Heaps heaps(c.instances, c.num_rows + 3, c.heads * (kRank + kRope), cache_bytes);
  const bool passed = check_mla_latent(c, step, heaps, rotation, random) &
                      check_mla_query(c, step, heaps, rotation, random);
  std::printf("check mla %3d heads, q rank %4d, %3d rows, %d instances, %3zu sends %s %s: %s\n",
              c.heads, c.q_rank, c.num_rows, c.instances, step.sends.size(),
              c.interleaved ? "i" : "n", c.type == CacheType::kE4m3 ? "e4m3" : "bf16",
              passed ? "ok" : "FAILED");
  return passed;
}

int run_checks() {
  Random random(1);
  bool passed = true;
  constexpr auto kBf16 = CacheType::kBf16;
  constexpr auto kE4m3 = CacheType::kE4m3;
  for (const GqaCase& c : {GqaCase{32, 4, 128, 1, 1, true, false, 128, false, kBf16},
                           GqaCase{32, 4, 128, 64, 1, true, false, 128, false, kBf16},
                           GqaCase{32, 4, 128, 64, 4, true, true, 128, false, kBf16},
                           GqaCase{64, 8, 64, 40, 8, false, true, 64, false, kBf16},
                           GqaCase{16, 2, 128, 300, 3, true, false, 64, false, kBf16},
                           GqaCase{5, 1, 64, 33, 2, false, false, 32, true, kBf16},
                           GqaCase{7, 1, 128, 5, 2, true, true, 128, true, kBf16},
                           GqaCase{4, 2, 64, 17, 4, false, false, 0, false, kBf16},
                           GqaCase{32, 4, 128, 64, 4, true, false, 128, false, kE4m3},
                           GqaCase{64, 8, 64, 40, 2, false, true, 64, false, kE4m3},
                           GqaCase{16, 2, 128, 9, 3, true, false, 96, false, kBf16}}) {
    passed &= check_gqa(c, random);
  }
  for (const MlaCase& c :
       {MlaCase{16, 1536, 1, 1, true}, MlaCase{128, 1536, 9, 3, true}, MlaCase{16, 0, 70, 8, true},
        MlaCase{5, 768, 33, 2, false}, MlaCase{128, 1536, 9, 3, true, CacheType::kE4m3},
        MlaCase{16, 0, 70, 8, false, CacheType::kE4m3}}) {
    passed &= check_mla(c, random);
  }
  passed &= check_query_order();
  std::printf("%s\n", passed ? "all checks passed" : "CHECKS FAILED");
  return passed ? 0 : 1;
}

// --- time

template <typename Args>
double time_of(int count, Status (*launch)(const Args&, cudaStream_t), const Args& args) {
  return time_in_graph(count,
                       [&](int, cudaStream_t stream) { CHECK_STATUS(launch(args, stream)); });
}

void time_gqa(const GqaCase& c) {
  Random random(2);
  const Step step(c.num_rows, c.num_rows, c.instances, random);
  const int width = (c.heads + 2 * c.kv_heads) * c.dim;
  const Heaps heaps(c.instances, c.num_rows, c.heads * c.dim,
                    int64_t{8} * kNumBlocks * (c.kv_heads * kBlockSize * c.dim + 64));
  const DeviceArray<__nv_bfloat16> qkv(
      Bf16Values(static_cast<size_t>(c.num_rows) * width, 2.0F, random).bf16);
  const DeviceArray<float> norm(random_floats(c.dim, 0.5, 1.5, random));
  const DeviceArray<uint32_t> counter(std::vector<uint32_t>{0});
  const Rotation rotation({.rotary_dim = c.dim, .theta = 1e6});
  const cuda::PrepareGqaArgs args = {.step = step.device,
                                     .exchange = heaps.view(),
                                     .epoch = {&step.device.header->step, 1, 0},
                                     .rows = c.num_rows,
                                     .num_heads = c.heads,
                                     .num_kv_heads = c.kv_heads,
                                     .head_dim = c.dim,
                                     .qkv = qkv.data(),
                                     .qkv_stride = width,
                                     .q_norm = norm.data(),
                                     .k_norm = norm.data(),
                                     .norm_eps = kEps,
                                     .rotary = rotation.view(),
                                     .cache = make_layout(c, heaps.view().offsets.kv_cache),
                                     .counter = counter.data()};
  const double us = time_of(96, cuda::launch_prepare_gqa, args);
  std::printf("time  gqa inputs %2d/%d x %3d, %3d rows, %d instances, %3zu sends: %5.2f us\n",
              c.heads, c.kv_heads, c.dim, c.num_rows, c.instances, step.sends.size(), us);
}

void time_mla(int heads, int num_rows, int instances, CacheType type) {
  Random random(2);
  const Step step(num_rows, num_rows, instances, random);
  const Heaps heaps(instances, num_rows, heads * (kRank + kRope),
                    1024 + int64_t{2} * kNumBlocks * (kBlockSize * 576 + 32));
  const Rotation rotation({.rotary_dim = kRope, .theta = 1e4, .interleaved = true});
  const int width = 1536 + kRank + kRope;
  const int q_width = heads * (kNope + kRope);
  const DeviceArray<__nv_bfloat16> latents(
      Bf16Values(static_cast<size_t>(num_rows) * width, 2.0F, random).bf16);
  const DeviceArray<__nv_bfloat16> q(
      Bf16Values(static_cast<size_t>(num_rows) * q_width, 2.0F, random).bf16);
  const DeviceArray<__nv_bfloat16> q_latent(static_cast<size_t>(num_rows) * 1536);
  const DeviceArray<float> norm(random_floats(1536, 0.5, 1.5, random));
  const DeviceArray<uint32_t> counter(std::vector<uint32_t>{0});
  const cuda::CacheLayout layout = make_latent_layout(type, heaps.view().offsets.kv_cache, 0);
  const cuda::PrepareMlaLatentArgs latent_args = {.step = step.device,
                                                  .exchange = heaps.view(),
                                                  .rows = num_rows,
                                                  .latents = latents.data(),
                                                  .row_stride = width,
                                                  .kv_column = 1536,
                                                  .q_column = 0,
                                                  .kv_rank = kRank,
                                                  .rope_dim = kRope,
                                                  .q_rank = 1536,
                                                  .kv_norm = norm.data(),
                                                  .q_norm = norm.data(),
                                                  .norm_eps = kEps,
                                                  .rotary = rotation.view(),
                                                  .cache = layout,
                                                  .q_latent = q_latent.data()};
  const double latent_us = time_of(96, cuda::launch_prepare_mla_latent, latent_args);
  const cuda::PrepareMlaQueryArgs query_args = {.step = step.device,
                                                .exchange = heaps.view(),
                                                .rows = num_rows,
                                                .num_heads = heads,
                                                .nope_dim = kNope,
                                                .rope_dim = kRope,
                                                .kv_rank = kRank,
                                                .q = q.data(),
                                                .q_stride = q_width,
                                                .rotary = rotation.view()};
  const double query_us = time_of(96, cuda::launch_prepare_mla_query, query_args);
  const cuda::SendQueriesArgs send_args = {.step = step.device,
                                           .exchange = heaps.view(),
                                           .epoch = {&step.device.header->step, 1, 0},
                                           .rows = num_rows,
                                           .counter = counter.data()};
  const double send_us = instances < 2 ? 0.0 : time_of(24, cuda::launch_send_queries, send_args);
  std::printf(
      "time  mla inputs %3d heads, %3d rows, %d instances, %3zu sends: latent %5.2f us, "
      "query %5.2f us, send %6.2f us\n",
      heads, num_rows, instances, step.sends.size(), latent_us, query_us, send_us);
}

int run_times() {
  for (const int instances : {1, 2, 8}) {
    for (const int rows : {1, 64, 256}) {
      time_gqa({32, 4, 128, rows, instances, true, false, 128, false, CacheType::kBf16});
    }
  }
  time_gqa({64, 8, 64, 64, 1, true, false, 64, false, CacheType::kBf16});
  time_gqa({32, 4, 128, 64, 1, true, false, 128, false, CacheType::kE4m3});
  for (const int heads : {16, 128}) {
    for (const int rows : {1, 64, 256}) time_mla(heads, rows, 2, CacheType::kBf16);
  }
  time_mla(128, 64, 2, CacheType::kE4m3);
  return 0;
}

}  // namespace
}  // namespace nanocp::bench

int main(int argc, char** argv) {
  nanocp::bench::enable_peers();
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::bench::run_checks();
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::bench::run_times();
  std::fprintf(stderr, "usage: %s --check | --time\n", argv[0]);
  return 1;
}
