// Row-wise CUDA kernels, sampling and weight conversion: `--check` compares random rows with the
// plain references in ops/, `--time` measures launches inside a graph with their data in the
// second-level cache, where it is in a decode step.
#include <cstring>

#include "backend/cuda/row_ops.h"
#include "backend/cuda/sampling.h"
#include "backend/cuda/weight_ops.h"
#include "bench/kernels/cuda_row_ops_bench_data.h"
#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/sampling.h"

namespace nanocp::bench {
namespace {

constexpr float kEps = 1e-6F;
constexpr int kPadding = 3;  // rows of a bucket beyond the real ones

struct RowCase {
  int rows, hidden;
};

DeviceArray<cuda::StepHeader> make_header(int num_rows, int num_samples) {
  return DeviceArray<cuda::StepHeader>(
      std::vector<cuda::StepHeader>{{1, num_rows, num_samples, num_rows, 0}});
}

// The norm of each row of `x` [rows, hidden], then NaN for the padding rows.
std::vector<float> norm_reference(const RowCase& c, const std::vector<float>& x,
                                  const std::vector<float>& weight) {
  std::vector<float> out(static_cast<size_t>(c.rows + kPadding) * c.hidden, NAN);
  ops::rms_norm({x.data(), c.rows, c.hidden, c.hidden}, weight, kEps,
                {out.data(), c.rows, c.hidden, c.hidden});
  return out;
}

bool check_embed(const RowCase& c, Random& random) {
  const int vocab = 50;
  const int bucket = c.rows + kPadding;
  const Bf16Values table(static_cast<size_t>(vocab) * c.hidden, 2.0F, random);
  const auto weight = random_floats(c.hidden, 0.5F, 1.5F, random);
  std::vector<int32_t> ids(bucket);
  for (int32_t& id : ids) id = static_cast<int32_t>(random.between(-2, vocab + 2));
  const DeviceArray<__nv_bfloat16> d_table(table.bf16), x(static_cast<size_t>(bucket) * c.hidden);
  const DeviceArray<float> d_weight(weight), residual(static_cast<size_t>(bucket) * c.hidden);
  const DeviceArray<int32_t> d_ids(ids);
  const auto header = make_header(c.rows, 0);
  CHECK_STATUS(cuda::launch_embed_norm({.header = header.data(),
                                        .rows = bucket,
                                        .hidden = c.hidden,
                                        .vocab_size = vocab,
                                        .token_ids = d_ids.data(),
                                        .embedding = d_table.data(),
                                        .norm_weight = d_weight.data(),
                                        .eps = kEps,
                                        .residual = residual.data(),
                                        .x = x.data(),
                                        .x_stride = c.hidden},
                                       nullptr));
  std::vector<float> want(static_cast<size_t>(bucket) * c.hidden, NAN);
  for (int r = 0; r < c.rows; ++r) {
    const auto from = table.as_float.begin() + std::clamp(ids[r], 0, vocab - 1) * c.hidden;
    std::copy_n(from, c.hidden, want.begin() + static_cast<int64_t>(r) * c.hidden);
  }
  return agree("embedding", residual.to_host(), want, {0, 0}) &
         agree("norm of embedding", to_floats(x.to_host()), norm_reference(c, want, weight),
               kBf16Tolerance);
}

bool check_add(const RowCase& c, bool with_delta, bool with_bias, Random& random) {
  const int bucket = c.rows + kPadding;
  const int stride = c.hidden + 16;
  const size_t count = static_cast<size_t>(bucket) * c.hidden;
  const Bf16Values delta(static_cast<size_t>(bucket) * stride, 2.0F, random);
  const auto weight = random_floats(c.hidden, 0.5F, 1.5F, random);
  const auto bias = random_floats(c.hidden, -1.0F, 1.0F, random);
  std::vector<float> want = random_floats(count, -3.0F, 3.0F, random);
  const DeviceArray<float> residual(want), d_weight(weight), d_bias(bias);
  const DeviceArray<__nv_bfloat16> d_delta(delta.bf16), x(count);
  const auto header = make_header(c.rows, 0);
  CHECK_STATUS(cuda::launch_add_norm({.header = header.data(),
                                      .rows = bucket,
                                      .hidden = c.hidden,
                                      .delta = with_delta ? d_delta.data() : nullptr,
                                      .delta_stride = stride,
                                      .bias = with_bias ? d_bias.data() : nullptr,
                                      .norm_weight = d_weight.data(),
                                      .eps = kEps,
                                      .residual = residual.data(),
                                      .x = x.data(),
                                      .x_stride = c.hidden},
                                     nullptr));
  for (int r = 0; r < c.rows; ++r) {
    for (int i = 0; i < c.hidden; ++i) {
      float& sum = want[static_cast<size_t>(r) * c.hidden + i];
      if (with_delta) sum += delta.as_float[static_cast<size_t>(r) * stride + i];
      if (with_bias) sum += bias[i];
    }
  }
  return agree("residual sum", residual.to_host(), want, {1e-6, 1e-6}) &
         agree("norm of sum", to_floats(x.to_host()), norm_reference(c, want, weight),
               kBf16Tolerance);
}

bool check_gather(const RowCase& c, Random& random) {
  const int bucket = c.rows + kPadding;
  const size_t count = static_cast<size_t>(bucket) * c.hidden;
  const auto weight = random_floats(c.hidden, 0.5F, 1.5F, random);
  const auto from = random_floats(count, -3.0F, 3.0F, random);
  std::vector<int32_t> rows(bucket);
  std::vector<float> gathered(count);
  for (int i = 0; i < c.rows; ++i) {
    rows[i] = static_cast<int32_t>(random.below(bucket));
    std::copy_n(from.begin() + static_cast<int64_t>(rows[i]) * c.hidden, c.hidden,
                gathered.begin() + static_cast<int64_t>(i) * c.hidden);
  }
  const DeviceArray<float> residual(from), d_weight(weight);
  const DeviceArray<int32_t> d_rows(rows);
  const DeviceArray<__nv_bfloat16> out(count);
  const auto header = make_header(bucket, c.rows);
  CHECK_STATUS(cuda::launch_gather_norm({.header = header.data(),
                                         .num_samples = bucket,
                                         .hidden = c.hidden,
                                         .sample_rows = d_rows.data(),
                                         .residual = residual.data(),
                                         .norm_weight = d_weight.data(),
                                         .eps = kEps,
                                         .out = out.data()},
                                        nullptr));
  return agree("gathered norm", to_floats(out.to_host()), norm_reference(c, gathered, weight),
               kBf16Tolerance);
}

bool check_activation(const RowCase& c, ops::Activation activation, bool with_bias,
                      Random& random) {
  const int bucket = c.rows + kPadding;
  const int width = 2 * c.hidden;
  Bf16Values gate_up(static_cast<size_t>(bucket) * width, 12.0F, random);
  const auto bias = random_floats(width, -1.0F, 1.0F, random);
  const DeviceArray<__nv_bfloat16> in(gate_up.bf16), out(static_cast<size_t>(bucket) * c.hidden);
  const DeviceArray<float> d_bias(bias);
  const auto header = make_header(c.rows, 0);
  CHECK_STATUS(cuda::launch_gated_activation({.header = header.data(),
                                              .rows = bucket,
                                              .intermediate = c.hidden,
                                              .activation = activation,
                                              .gate_up = in.data(),
                                              .gate_up_stride = width,
                                              .bias = with_bias ? d_bias.data() : nullptr,
                                              .out = out.data(),
                                              .out_stride = c.hidden},
                                             nullptr));
  std::vector<float>& values = gate_up.as_float;
  for (size_t i = 0; with_bias && i < values.size(); ++i) values[i] += bias[i % width];
  const tensor::Matrix gate = {values.data(), c.rows, c.hidden, width};
  ops::gated_activation(activation, gate,
                        tensor::ConstMatrix{values.data() + c.hidden, c.rows, c.hidden, width});
  std::vector<float> want(static_cast<size_t>(bucket) * c.hidden, NAN);
  for (int r = 0; r < c.rows; ++r) {
    std::copy_n(gate.row(r), c.hidden, want.begin() + static_cast<int64_t>(r) * c.hidden);
  }
  return agree("gated activation", to_floats(out.to_host()), want, kBf16Tolerance);
}

bool check_row_ops(Random& random) {
  bool passed = true;
  for (const RowCase& c : {RowCase{1, 2048}, RowCase{5, 128}, RowCase{64, 2880}, RowCase{7, 7168},
                           RowCase{300, 4096}, RowCase{2, 8192}, RowCase{3, 8}, RowCase{3, 264}}) {
    passed &= check_embed(c, random);
    for (const int flags : {0, 1, 2, 3}) {
      passed &= check_add(c, (flags & 1) != 0, (flags & 2) != 0, random);
      passed &= check_activation(
          c, (flags & 1) != 0 ? ops::Activation::kSwiglu : ops::Activation::kClampedSwiglu,
          (flags & 2) != 0, random);
    }
    passed &= check_gather(c, random);
  }
  std::printf("check row ops: %s\n", passed ? "ok" : "FAILED");
  return passed;
}

struct SampleCase {
  int samples, vocab;
  bool bf16;
  float spread;  // of the logits
};

// Logits with ties, NaN, infinities, and rows where nothing is finite.
std::vector<float> random_logits(const SampleCase& c, int stride, int bucket, Random& random) {
  std::vector<float> logits =
      random_floats(static_cast<size_t>(bucket) * stride, -c.spread, c.spread, random);
  for (float& logit : logits) {
    if (c.bf16) logit = __bfloat162float(__float2bfloat16(logit));
    const uint64_t kind = random.below(1000);
    if (kind == 0) logit = NAN;
    if (kind == 1) logit = -INFINITY;
  }
  for (int r = 0; r < bucket; ++r) {
    float* row = logits.data() + static_cast<size_t>(r) * stride;
    if (r % 9 == 4) std::fill_n(row, stride, r % 2 == 0 ? NAN : -INFINITY);
    if (r % 9 == 5) row[random.below(static_cast<uint64_t>(c.vocab))] = INFINITY;
    if (r % 9 == 6) std::fill_n(row, stride, 1.5F);
    std::fill(row + c.vocab, row + stride, 1e30F);  // beyond the vocabulary
  }
  return logits;
}

int count_wrong_tokens(const SampleCase& c, int stride, const std::vector<float>& logits,
                       const std::vector<cuda::SampleSpec>& specs,
                       const std::vector<int32_t>& tokens) {
  int num_wrong = 0;
  for (int i = 0; i < static_cast<int>(tokens.size()); ++i) {
    int32_t want = -1;
    if (i < c.samples && specs[i].mode != cuda::SampleMode::kSkip) {
      std::vector<float> row(logits.begin() + static_cast<int64_t>(i) * stride,
                             logits.begin() + static_cast<int64_t>(i) * stride + c.vocab);
      SamplingParams params;
      if (specs[i].mode == cuda::SampleMode::kDraw) params.temperature = specs[i].temperature;
      want = ops::sample(row, params, {}, specs[i].random_bits).token;
    }
    if (tokens[i] == want) continue;
    if (num_wrong++ == 0) {
      std::printf("check sampling: row %d mode %d temperature %g: %d instead of %d\n", i,
                  static_cast<int>(specs[i].mode), static_cast<double>(specs[i].temperature),
                  tokens[i], want);
    }
  }
  return num_wrong;
}

bool check_sampling(const SampleCase& c, const DeviceArray<uint8_t>& workspace, Random& random) {
  const int bucket = c.samples + kPadding;
  const int stride = (c.vocab + 7) / 8 * 8;
  const std::vector<float> logits = random_logits(c, stride, bucket, random);
  std::vector<__nv_bfloat16> as_bf16(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) as_bf16[i] = __float2bfloat16(logits[i]);
  std::vector<cuda::SampleSpec> specs(bucket);
  for (cuda::SampleSpec& spec : specs) {
    constexpr float kTemperatures[] = {1.0F, 0.7F, 0.05F, 1e-6F, 2.0F, 1e-4F};
    spec = {random.next(), kTemperatures[random.below(6)],
            static_cast<cuda::SampleMode>(std::min<uint64_t>(2, (random.below(8) + 3) / 4))};
  }
  const DeviceArray<float> floats(logits);
  const DeviceArray<__nv_bfloat16> bf16s(as_bf16);
  const DeviceArray<cuda::SampleSpec> d_specs(specs);
  const DeviceArray<int32_t> tokens(bucket);
  const auto header = make_header(bucket, c.samples);
  for (int i = 0; i < 2; ++i) {  // twice: the workspace must serve again
    CHECK_STATUS(cuda::launch_sample(
        {.header = header.data(),
         .num_samples = bucket,
         .vocab_size = c.vocab,
         .logits = c.bf16 ? static_cast<const void*>(bf16s.data()) : floats.data(),
         .logits_stride = stride,
         .bf16_logits = c.bf16,
         .specs = d_specs.data(),
         .tokens = tokens.data(),
         .workspace = workspace.data()},
        nullptr));
  }
  const std::vector<float> seen = c.bf16 ? to_floats(as_bf16) : logits;
  const int num_wrong = count_wrong_tokens(c, stride, seen, specs, tokens.to_host());
  std::printf("check sampling %3d x %6d %s spread %4.1f: %d wrong %s\n", c.samples, c.vocab,
              c.bf16 ? "bf16" : "f32 ", static_cast<double>(c.spread), num_wrong,
              num_wrong == 0 ? "ok" : "FAILED");
  return num_wrong == 0;
}

// --- weights

struct WeightCase {
  tensor::WeightFormat format;
  int rows, cols;
};

bool check_convert(const WeightCase& c, Random& random) {
  const auto stride = static_cast<size_t>(tensor::row_bytes(c.format, c.cols)) + 32;
  std::vector<uint8_t> bytes(stride * static_cast<size_t>(c.rows));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  const int scale_stride = (c.cols + 127) / 128 + 1;
  const auto scales =
      random_floats(static_cast<size_t>(c.rows / 128 + 3) * scale_stride, 0.01F, 2.0F, random);
  std::vector<uint8_t> group_scales(static_cast<size_t>(c.rows) * (c.cols / 32 + 2));
  for (uint8_t& scale : group_scales) scale = static_cast<uint8_t>(random.between(110, 140));
  tensor::WeightView view = {.format = c.format,
                             .data = bytes.data(),
                             .rows = c.rows,
                             .cols = c.cols,
                             .stride_bytes = static_cast<int64_t>(stride),
                             .scales = scales.data(),
                             .scale_stride = scale_stride,
                             .block_rows = 128,
                             .block_cols = 128,
                             .scale_row_offset = 64,
                             .group_scales = group_scales.data(),
                             .group_scale_stride = c.cols / 32 + 2};
  const int out_stride = c.cols + 8 - c.rows % 2;  // not always aligned
  std::vector<float> want(static_cast<size_t>(c.rows) * out_stride, NAN);
  std::vector<float> want_float;
  for (int r = 0; r < c.rows; ++r) {
    for (int col = 0; col < c.cols; ++col) {
      const float value = ops::weight_element(view, r, col);
      want[static_cast<size_t>(r) * out_stride + col] = __bfloat162float(__float2bfloat16(value));
      want_float.push_back(value);
    }
  }
  const DeviceArray<uint8_t> d_bytes(bytes), d_group_scales(group_scales);
  const DeviceArray<float> d_scales(scales), out_float(want_float.size());
  const DeviceArray<__nv_bfloat16> out(want.size());
  view.data = d_bytes.data();
  view.scales = d_scales.data();
  view.group_scales = d_group_scales.data();
  CHECK_STATUS(cuda::launch_convert_weight(view, out.data(), out_stride, nullptr));
  CHECK_STATUS(cuda::launch_convert_weight_to_float(view, out_float.data(), nullptr));
  std::vector<float> got = to_floats(out.to_host());
  std::vector<float> got_float = out_float.to_host();
  // Infinities compare as the largest value.
  for (auto* values : {&want, &want_float, &got, &got_float}) {
    for (float& value : *values) value = std::isinf(value) ? std::copysign(3e38F, value) : value;
  }
  return agree(std::string("conversion of ") + tensor::to_string(c.format), got, want, {0, 0}) &
         agree(std::string("floats of ") + tensor::to_string(c.format), got_float, want_float,
               {0, 0});
}

bool check_fill() {
  const size_t count = 100003;
  const DeviceArray<__nv_bfloat16> weights(count);
  const DeviceArray<float> norms(count);
  CHECK_STATUS(cuda::launch_fill_dummy(weights.data(), count, 0.02F, 7, nullptr));
  CHECK_STATUS(cuda::launch_fill_dummy_norm(norms.data(), count, 7, nullptr));
  double sum = 0;
  double squares = 0;
  bool in_range = true;
  for (const float value : to_floats(weights.to_host())) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
    in_range &= std::abs(value) <= 0.02F;
  }
  for (const float value : norms.to_host()) in_range &= value >= 0.9F && value <= 1.1F;
  const double deviation = std::sqrt(squares / count);
  const bool passed = in_range && std::abs(sum / count) < 2e-4 &&
                      std::abs(deviation - 0.02 / std::sqrt(3.0)) < 2e-4;
  std::printf("check fill: mean %.1e deviation %.5f %s\n", sum / count, deviation,
              passed ? "ok" : "FAILED");
  return passed;
}

bool check_weights(Random& random) {
  using tensor::WeightFormat;
  bool passed = check_fill();
  for (const auto format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBf16,
                            WeightFormat::kFp8Block, WeightFormat::kMxfp4}) {
    for (const auto& [rows, cols] : {std::pair{5, 320}, {300, 2048}, {64, 96}}) {
      passed &= check_convert({format, rows, cols}, random);
    }
  }
  std::printf("check weights: %s\n", passed ? "ok" : "FAILED");
  return passed;
}

// Launches that overlap the kernel before them must also be captured behind what is no kernel: a
// copy, and work of another stream.
bool check_capture() {
  const int hidden = 2048;
  const DeviceArray<float> from(std::vector<float>(hidden, 1.0F)), residual(hidden);
  const DeviceArray<float> sum(std::vector<float>(hidden, 0.0F));
  const DeviceArray<__nv_bfloat16> x(hidden);
  const auto header = make_header(1, 1);
  cudaStream_t main, side;
  cudaEvent_t fork, join;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_CUDA(cudaStreamCreate(&main));
  CHECK_CUDA(cudaStreamCreate(&side));
  CHECK_CUDA(cudaEventCreate(&fork));
  CHECK_CUDA(cudaEventCreate(&join));
  cuda::AddNormArgs args = {.header = header.data(),
                            .rows = 1,
                            .hidden = hidden,
                            .bias = from.data(),
                            .norm_weight = from.data(),
                            .eps = kEps,
                            .residual = residual.data(),
                            .x = x.data(),
                            .x_stride = hidden};
  cuda::AddNormArgs other = args;
  other.residual = sum.data();
  other.x = nullptr;
  CHECK_CUDA(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal));
  CHECK_CUDA(cudaMemcpyAsync(residual.data(), from.data(), residual.bytes(),
                             cudaMemcpyDeviceToDevice, main));
  CHECK_CUDA(cudaEventRecord(fork, main));
  CHECK_CUDA(cudaStreamWaitEvent(side, fork, 0));
  for (int i = 0; i < 20; ++i) CHECK_STATUS(cuda::launch_add_norm(args, main));
  for (int i = 0; i < 30; ++i) CHECK_STATUS(cuda::launch_add_norm(other, side));
  CHECK_CUDA(cudaEventRecord(join, side));
  CHECK_CUDA(cudaStreamWaitEvent(main, join, 0));
  args.delta = x.data();
  args.delta_stride = hidden;
  CHECK_STATUS(cuda::launch_add_norm(args, main));
  other.residual = residual.data();
  CHECK_STATUS(cuda::launch_add_norm(other, main));
  CHECK_CUDA(cudaStreamEndCapture(main, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 3; ++i) CHECK_CUDA(cudaGraphLaunch(executable, main));
  CHECK_CUDA(cudaStreamSynchronize(main));
  // 1 from the copy, 20 and 2 from biases, 1 from the norm of equal values.
  const bool passed =
      agree("captured chain", residual.to_host(), std::vector<float>(hidden, 24.0F), {1e-5, 0}) &
      agree("captured side", sum.to_host(), std::vector<float>(hidden, 90.0F), {0, 0});
  std::printf("check capture: %s\n", passed ? "ok" : "FAILED");
  return passed;
}

int run_checks() {
  Random random(1);
  bool passed = check_row_ops(random) & check_weights(random);
  const DeviceArray<uint8_t> workspace(cuda::sampling_workspace_bytes(300));
  CHECK_CUDA(cudaMemset(workspace.data(), 0, workspace.bytes()));
  for (const SampleCase& c :
       {SampleCase{1, 151936, false, 8.0F}, SampleCase{64, 151936, false, 8.0F},
        SampleCase{33, 201088, true, 8.0F}, SampleCase{290, 1003, false, 0.5F},
        SampleCase{20, 129280, true, 0.01F}, SampleCase{9, 5, false, 3.0F},
        SampleCase{40, 32000, false, 30.0F}, SampleCase{1, 151936, true, 1.0F}}) {
    passed &= check_sampling(c, workspace, random);
  }
  passed &= check_capture();
  CHECK_CUDA(cudaDeviceSynchronize());
  std::printf("%s\n", passed ? "all checks passed" : "CHECKS FAILED");
  return passed ? 0 : 1;
}

// --- time

void time_rows(int rows, int hidden, int intermediate) {
  const size_t count = static_cast<size_t>(rows) * hidden;
  Random random(2);
  const DeviceArray<float> weight(random_floats(hidden, 0.5F, 1.5F, random));
  const DeviceArray<float> residual(std::vector<float>(count, 1.0F));
  const DeviceArray<__nv_bfloat16> x(count), out(static_cast<size_t>(rows) * intermediate);
  const DeviceArray<__nv_bfloat16> delta(std::vector<__nv_bfloat16>(count, __nv_bfloat16(0.01F)));
  const DeviceArray<__nv_bfloat16> gate_up(std::vector<__nv_bfloat16>(
      static_cast<size_t>(rows) * intermediate * 2, __nv_bfloat16(0.01F)));
  const auto header = make_header(rows, rows);
  cuda::AddNormArgs norm = {.header = header.data(),
                            .rows = rows,
                            .hidden = hidden,
                            .delta = delta.data(),
                            .delta_stride = hidden,
                            .norm_weight = weight.data(),
                            .eps = kEps,
                            .residual = residual.data(),
                            .x = x.data(),
                            .x_stride = hidden};
  const double norm_us = time_in_graph(
      96, [&](int, cudaStream_t stream) { CHECK_STATUS(cuda::launch_add_norm(norm, stream)); });
  const cuda::GatedActivationArgs gate = {.header = header.data(),
                                          .rows = rows,
                                          .intermediate = intermediate,
                                          .gate_up = gate_up.data(),
                                          .gate_up_stride = 2 * int64_t{intermediate},
                                          .out = out.data(),
                                          .out_stride = intermediate};
  const double gate_us = time_in_graph(96, [&](int, cudaStream_t stream) {
    CHECK_STATUS(cuda::launch_gated_activation(gate, stream));
  });
  std::printf("time  %3d rows x %5d: sum and norm %5.2f us; gated activation of %5d %5.2f us\n",
              rows, hidden, norm_us, intermediate, gate_us);
}

void time_sampling(int samples, int vocab, bool bf16) {
  Random random(3);
  const size_t count = static_cast<size_t>(samples) * vocab;
  const DeviceArray<float> floats(random_floats(bf16 ? 1 : count, -8.0F, 8.0F, random));
  const DeviceArray<__nv_bfloat16> bf16s(Bf16Values(bf16 ? count : 1, 8.0F, random).bf16);
  const DeviceArray<uint8_t> workspace(cuda::sampling_workspace_bytes(samples));
  CHECK_CUDA(cudaMemset(workspace.data(), 0, workspace.bytes()));
  const DeviceArray<int32_t> tokens(samples);
  const auto header = make_header(samples, samples);
  double us[2];
  for (const int draw : {0, 1}) {
    std::vector<cuda::SampleSpec> specs(samples);
    for (auto& spec : specs) spec = {random.next(), 1.0F, static_cast<cuda::SampleMode>(draw)};
    const DeviceArray<cuda::SampleSpec> d_specs(specs);
    us[draw] = time_in_graph(24, [&](int, cudaStream_t stream) {
      CHECK_STATUS(cuda::launch_sample(
          {.header = header.data(),
           .num_samples = samples,
           .vocab_size = vocab,
           .logits = bf16 ? static_cast<const void*>(bf16s.data()) : floats.data(),
           .logits_stride = vocab,
           .bf16_logits = bf16,
           .specs = d_specs.data(),
           .tokens = tokens.data(),
           .workspace = workspace.data()},
          stream));
    });
  }
  std::printf("time  %3d x %6d logits %s: greedy %6.2f us, draw %6.2f us\n", samples, vocab,
              bf16 ? "bf16" : "f32 ", us[0], us[1]);
}

void time_convert(tensor::WeightFormat format) {
  const int64_t rows = 8192;
  const int64_t cols = 8192;
  const DeviceArray<uint8_t> bytes(static_cast<size_t>(rows * cols * 4));
  const DeviceArray<float> scales(static_cast<size_t>(rows));
  const DeviceArray<__nv_bfloat16> out(static_cast<size_t>(rows * cols));
  const tensor::WeightView view = {.format = format,
                                   .data = bytes.data(),
                                   .rows = rows,
                                   .cols = cols,
                                   .stride_bytes = tensor::row_bytes(format, cols),
                                   .scales = scales.data(),
                                   .scale_stride = cols / 128,
                                   .block_rows = 128,
                                   .block_cols = 128,
                                   .group_scales = bytes.data(),
                                   .group_scale_stride = cols / 32};
  const double us = time_in_graph(4, [&](int, cudaStream_t stream) {
    CHECK_STATUS(cuda::launch_convert_weight(view, out.data(), cols, stream));
  });
  std::printf("time  conversion of %s: %.0f GB/s written\n", tensor::to_string(format),
              static_cast<double>(rows * cols) * 2 / us / 1e3);
}

__global__ void empty_kernel() {}

int run_times() {
  std::printf("time  empty kernel %.2f us\n", time_in_graph(96, [](int, cudaStream_t stream) {
                empty_kernel<<<1, 32, 0, stream>>>();
              }));
  for (const int rows : {1, 64, 256}) {
    time_rows(rows, 2048, 768);
    time_rows(rows, 7168, 18432);
  }
  for (const int samples : {1, 64, 256}) {
    time_sampling(samples, 151936, false);
    time_sampling(samples, 151936, true);
  }
  for (const auto format : {tensor::WeightFormat::kBf16, tensor::WeightFormat::kFp8Block,
                            tensor::WeightFormat::kMxfp4}) {
    time_convert(format);
  }
  return 0;
}

}  // namespace
}  // namespace nanocp::bench

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::bench::run_checks();
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::bench::run_times();
  std::fprintf(stderr, "usage: %s --check | --time\n", argv[0]);
  return 1;
}
