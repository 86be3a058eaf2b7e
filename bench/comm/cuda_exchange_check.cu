// Checks the exchange kernels over thousands of chained epochs: random numbers of rows (also none),
// random destinations, random delays between kernels, and data that differs from epoch to epoch, so
// that a stale or early read shows. Stand-ins take the place of attention and experts; results are
// compared with plain double sums (cuda_exchange_check_kernels.cuh). Instances share GPUs where
// there are too few, which also covers groups of 3 and 4. The router of all kinds against the
// host's. Then waits without a peer, and aborts. Usage: cuda_exchange_check [steps [plain]]; plain:
// heaps without NCCL, for compute-sanitizer.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/device_arena.h"
#include "base/random.h"
#include "bench/comm/cuda_exchange_check_heaps.h"
#include "bench/comm/cuda_exchange_check_kernels.cuh"
#include "runner/cuda/step_image.h"

namespace nanocp {
namespace {

using bench::Heaps;
using bench::must;
using bench::must_cuda;
using bench::num_gpus;

constexpr int kExchanges = 8;  // of each kind in a step
bool plain_heaps = false;

comm::ExchangeCapacity capacity_of(int32_t instances, int32_t rows, int32_t hidden, int32_t heads,
                                   int32_t k_dim, int32_t v_dim) {
  return {.num_instances = instances,
          .max_rows = rows,
          .hidden = hidden,
          .topk = 8,
          .num_heads = heads,
          .query_values = heads * k_dim,
          .partial_values = heads * v_dim,
          .kv_cache_bytes = 256};
}

// The same on all instances: each works it out for itself from the step's number.
scheduler::StepPlan random_plan(const comm::ExchangeCapacity& capacity, uint64_t step) {
  Random random(step * 977 + static_cast<uint64_t>(capacity.num_instances));
  scheduler::StepPlan plan;
  plan.instances.resize(static_cast<size_t>(capacity.num_instances));
  for (auto& instance : plan.instances) instance.reset(capacity.num_instances);
  for (InstanceId i = 0; i < capacity.num_instances; ++i) {
    InstancePlan& own = plan.instances[static_cast<size_t>(i)];
    const bool idle = random.below(4) == 0;
    const int64_t most = random.below(2) == 0 ? 3 : capacity.max_rows;
    const int64_t rows = idle ? 0 : random.between(0, std::min<int64_t>(most, capacity.max_rows));
    const uint64_t send_share = random.below(4);
    for (int32_t row = 0; row < rows; ++row) {
      own.token_ids.push_back(row);
      own.positions.push_back(row);
      own.items.push_back({i, row, 1, 0, 1, {}, {}});
      for (InstanceId to = 0; to < capacity.num_instances; ++to) {
        if (to == i || random.below(3) >= send_share) continue;
        InstancePlan& other = plan.instances[static_cast<size_t>(to)];
        const int32_t slot = own.query_sends.add(to, row);
        ++other.num_query_receives[static_cast<size_t>(i)];
        other.items.push_back({i, slot, 1, 0, 1, {}, {}});
      }
    }
  }
  return plan;
}

int32_t first_expert(int32_t instance, int32_t num_instances, int32_t num_experts) {
  int32_t e = 0;
  while (e < num_experts && e * num_instances / num_experts < instance) ++e;
  return e;
}

// Everything of one instance. Used by its thread.
class Member {
 public:
  Member(const comm::ExchangeCapacity& capacity, const cuda::ExchangeView& exchange,
         int32_t num_experts)
      : capacity_(capacity), arena_("the check") {
    must_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    image_ = must(runner::StepImage::create({.self = exchange.self,
                                             .num_instances = capacity.num_instances,
                                             .max_rows = capacity.max_rows,
                                             .num_blocks = 16}));
    const int64_t rows = capacity.max_rows;
    const int64_t all = (1 + capacity.num_instances) * rows;
    const int32_t begin = first_expert(exchange.self, capacity.num_instances, num_experts);
    const int32_t end = first_expert(exchange.self + 1, capacity.num_instances, num_experts);
    const auto sizes = cuda::expert_plan_sizes(exchange, end - begin, kTileRows);
    work_ = {.step = image_->device(),
             .exchange = exchange,
             .num_experts = num_experts,
             .expert_begin = begin,
             .num_local_experts = end - begin,
             .lists = {.row_of = must(arena_.take<int32_t>(sizes.max_assignments)),
                       .assignment_of = must(
                           arena_.take<int32_t>(capacity.num_instances * rows * capacity.topk)),
                       .tiles = must(arena_.take<cuda::TokenTile>(sizes.max_tiles)),
                       .num_tiles = must(arena_.take<int32_t>(1))},
             .logits = must(arena_.take<float>(rows * num_experts)),
             .out = must(arena_.take<float>(all * capacity.partial_values)),
             .lse = must(arena_.take<float>(all * capacity.num_heads)),
             .sinks = must(arena_.take<float>(capacity.num_heads)),
             .merged = must(arena_.take<__nv_bfloat16>(rows * capacity.partial_values)),
             .y = must(arena_.take<__nv_bfloat16>(sizes.max_assignments * capacity.hidden)),
             .shared = must(arena_.take<__nv_bfloat16>(rows * capacity.hidden)),
             .norm = must(arena_.take<float>(capacity.hidden)),
             .residual = must(arena_.take<float>(rows * capacity.hidden)),
             .x = must(arena_.take<__nv_bfloat16>(rows * capacity.hidden)),
             .counters = must(arena_.take<uint32_t>(64)),
             .mistakes = must(arena_.take<bench::Mistakes>(1))};
    must_cuda(cudaDeviceSynchronize());
  }

  void run_step(uint64_t step) {
    image_->fill(step, random_plan(capacity_, step));
    must(image_->upload(stream_));
    Random random(step * 31 + static_cast<uint64_t>(work_.exchange.self));
    for (int e = 0; e < kExchanges; ++e) run_exchange(step, e, random);
    must_cuda(cudaStreamSynchronize(stream_));
  }

  void dispatch(int e) {
    const ops::RouterSpec router = {.renormalize = true, .topk = capacity_.topk, .scaling = 1.0F};
    must(cuda::launch_gate_dispatch({.step = work_.step,
                                     .exchange = work_.exchange,
                                     .epoch = epoch(e),
                                     .rows = capacity_.max_rows,
                                     .router = router,
                                     .num_experts = work_.num_experts,
                                     .logits = work_.logits,
                                     .counter = work_.counters},
                                    stream_));
    must(cuda::launch_expert_plan({.exchange = work_.exchange,
                                   .epoch = epoch(e),
                                   .expert_begin = work_.expert_begin,
                                   .num_experts = work_.num_local_experts,
                                   .tile_rows = kTileRows,
                                   .overlaps = true,
                                   .lists = work_.lists},
                                  stream_));
  }
  // The choices for all rows of a group of one.
  void choose(const ops::RouterSpec& router, const std::vector<float>& logits,
              const std::vector<float>& bias, std::vector<int32_t>& idx,
              std::vector<float>& weights) {
    scheduler::StepPlan plan = random_plan(capacity_, 1);
    plan.instances[0].reset(1);
    plan.instances[0].token_ids.assign(static_cast<size_t>(capacity_.max_rows), 0);
    plan.instances[0].positions.assign(static_cast<size_t>(capacity_.max_rows), 0);
    image_->fill(1, plan);
    must(image_->upload(stream_));
    must_cuda(cudaMemcpy(work_.logits, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice));
    float* on_gpu = must(arena_.take<float>(work_.num_experts));
    must_cuda(cudaMemcpy(on_gpu, bias.data(), bias.size() * 4, cudaMemcpyHostToDevice));
    must(cuda::launch_gate_dispatch({.step = work_.step,
                                     .exchange = work_.exchange,
                                     .epoch = epoch(0),
                                     .rows = capacity_.max_rows,
                                     .router = router,
                                     .num_experts = work_.num_experts,
                                     .logits = work_.logits,
                                     .correction_bias = bias.empty() ? nullptr : on_gpu,
                                     .counter = work_.counters},
                                    stream_));
    synchronize();
    uint8_t* heap = nullptr;
    must_cuda(cudaMemcpy(&heap, work_.exchange.base, sizeof(heap), cudaMemcpyDeviceToHost));
    std::vector<cuda::ExpertChoice> choices(2 * idx.size());  // the first epoch's are odd
    must_cuda(cudaMemcpy(choices.data(), heap + work_.exchange.offsets.choices,
                         choices.size() * sizeof(choices[0]), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < idx.size(); ++i) {
      idx[i] = choices[idx.size() + i].expert;
      weights[i] = choices[idx.size() + i].weight;
    }
  }
  void start_step(uint64_t step) {
    image_->fill(step, random_plan(capacity_, step));
    must(image_->upload(stream_));
  }
  void synchronize() { must_cuda(cudaStreamSynchronize(stream_)); }
  bench::Mistakes mistakes() const {
    bench::Mistakes found;
    must_cuda(cudaMemcpy(&found, work_.mistakes, sizeof(found), cudaMemcpyDeviceToHost));
    return found;
  }

 private:
  static constexpr int32_t kTileRows = 8;

  cuda::ExchangeEpoch epoch(int e) const { return {&work_.step.header->step, kExchanges, e}; }

  void run_exchange(uint64_t step, int e, Random& random) {
    const uint64_t number = (step - 1) * kExchanges + static_cast<uint64_t>(e) + 1;
    const auto delay = [&] {
      const uint64_t ns = random.below(3) == 0 ? random.below(30'000) : 0;
      if (ns > 0) bench::delay_kernel<<<1, 1, 0, stream_>>>(ns);
    };
    const dim3 grid(static_cast<unsigned>(capacity_.max_rows));
    bench::fill_kernel<<<grid, 256, 0, stream_>>>(work_, number);
    delay();
    must(cuda::launch_send_queries({.step = work_.step,
                                    .exchange = work_.exchange,
                                    .epoch = epoch(e),
                                    .rows = capacity_.max_rows,
                                    .counter = work_.counters + 1},
                                   stream_));
    bench::wait_queries_kernel<<<1, 128, 0, stream_>>>(work_, epoch(e));
    delay();
    bench::attend_kernel<<<grid, 256, 0, stream_>>>(work_, number);
    must(cuda::launch_finish_attention({.step = work_.step,
                                        .exchange = work_.exchange,
                                        .epoch = epoch(e),
                                        .rows = capacity_.max_rows,
                                        .out = work_.out,
                                        .lse = work_.lse,
                                        .sinks = e % 2 == 0 ? work_.sinks : nullptr,
                                        .merged = work_.merged,
                                        .counter = work_.counters + 2},
                                       stream_));
    bench::check_merge_kernel<<<grid, 256, 0, stream_>>>(work_, number, e % 2 == 0);
    delay();
    dispatch(e);
    delay();
    bench::expert_kernel<<<128, 256, 0, stream_>>>(work_);
    must(cuda::launch_combine({.step = work_.step,
                               .exchange = work_.exchange,
                               .epoch = epoch(e),
                               .num_experts = work_.num_experts,
                               .y = work_.y,
                               .assignment_of = work_.lists.assignment_of,
                               .shared = e % 3 == 0 ? work_.shared : nullptr,
                               .norm_weight = work_.norm,
                               .eps = 1e-6F,
                               .residual = work_.residual,
                               .x = work_.x},
                              stream_));
    bench::check_combine_kernel<<<grid, 256, 0, stream_>>>(work_, number, e % 3 == 0);
    must_cuda(cudaGetLastError());
  }

  const comm::ExchangeCapacity capacity_;
  cuda::DeviceArena arena_;
  std::unique_ptr<runner::StepImage> image_;
  cudaStream_t stream_ = nullptr;
  bench::Work work_ = {};
};

bool check_chain(const comm::ExchangeCapacity& capacity, int32_t num_experts, uint64_t steps) {
  Heaps heaps(capacity, plain_heaps);
  std::vector<bench::Mistakes> mistakes(static_cast<size_t>(capacity.num_instances));
  std::barrier meet(capacity.num_instances);  // allocations and frees would wait for all kernels
  std::vector<std::thread> threads;
  for (int i = 0; i < capacity.num_instances; ++i) {
    threads.emplace_back([&, i] {
      must_cuda(cudaSetDevice(heaps.device(i)));
      Member member(capacity, heaps.view(i), num_experts);
      meet.arrive_and_wait();
      for (uint64_t step = 1; step <= steps; ++step) member.run_step(step);
      meet.arrive_and_wait();
      mistakes[static_cast<size_t>(i)] = member.mistakes();
      meet.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string failure = heaps.failure();
  bool good = failure.empty();
  unsigned long long checked = 0;
  for (int i = 0; i < capacity.num_instances; ++i) {
    const bench::Mistakes& m = mistakes[static_cast<size_t>(i)];
    checked += m.checked;
    if (m.count == 0) continue;
    good = false;
    std::printf("  instance %d: %llu wrong, one: %s, epoch %llu, row %d, value %d: %g, not %g\n", i,
                m.count, m.what == 0 ? "merge" : (m.what == 1 ? "residual" : "norm"), m.epoch,
                m.row, m.column, static_cast<double>(m.got), static_cast<double>(m.expected));
  }
  std::printf(
      "check %d instances, %s, %d x %d values, hidden %d, top %d of %d: %llu epochs, %llu "
      "values %s%s\n",
      capacity.num_instances, heaps.connected() ? "own GPUs" : "shared GPUs", capacity.num_heads,
      capacity.partial_values / capacity.num_heads, capacity.hidden, capacity.topk, num_experts,
      static_cast<unsigned long long>(steps) * kExchanges, checked, good ? "ok" : "WRONG ",
      failure.c_str());
  return good;
}

// A router's choices on the GPU against ops::topk_gate. Logits lie on a grid, so that some are
// equal.
bool check_gate(const ops::RouterSpec& spec, int32_t num_experts, Random& random) {
  const int32_t rows = 64;
  comm::ExchangeCapacity capacity = capacity_of(1, rows, 64, 1, 64, 64);
  capacity.topk = spec.topk;
  Heaps heaps(capacity, plain_heaps);
  Member member(capacity, heaps.view(0), num_experts);
  std::vector<float> logits(static_cast<size_t>(rows * num_experts));
  for (float& logit : logits) logit = (static_cast<float>(random.below(64)) + 0.3F) / 8.0F - 4.0F;
  std::vector<float> bias(static_cast<size_t>(num_experts));
  for (float& b : bias) b = static_cast<float>(random.below(16)) * 0.0371F;
  if (!spec.correction_bias) bias.clear();
  const size_t count = static_cast<size_t>(rows * spec.topk);
  std::vector<int32_t> idx(count), expected_idx(count);
  std::vector<float> weights(count), expected(count);
  ops::topk_gate(spec, {logits.data(), rows, num_experts, num_experts}, bias, expected_idx,
                 expected);
  member.choose(spec, logits, bias, idx, weights);
  size_t wrong = 0;
  for (size_t i = 0; i < count; ++i) {
    const bool near = std::abs(weights[i] - expected[i]) <= 1e-5F * (1.0F + std::abs(expected[i]));
    if (idx[i] == expected_idx[i] && near) continue;
    if (wrong++ > 0) continue;
    std::printf("  row %zu choice %zu: expert %d with %g, not %d with %g\n",
                i / static_cast<size_t>(spec.topk), i % static_cast<size_t>(spec.topk), idx[i],
                static_cast<double>(weights[i]), expected_idx[i], static_cast<double>(expected[i]));
  }
  std::printf("check router, %3d experts, top %2d, %s, groups %d of %d by %d%s%s: %zu wrong %s\n",
              num_experts, spec.topk,
              spec.score == ops::RouterScore::kSoftmax ? "softmax" : "sigmoid", spec.topk_groups,
              spec.num_groups, static_cast<int>(spec.group_score),
              spec.correction_bias ? ", bias" : "", spec.renormalize ? ", renormalized" : "", wrong,
              wrong == 0 ? "ok" : "WRONG");
  return wrong == 0;
}

bool check_gates() {
  Random random(7);
  bool good = true;
  for (const int32_t num_experts : {8, 60, 128, 256, 512}) {
    for (const auto score : {ops::RouterScore::kSoftmax, ops::RouterScore::kSigmoid}) {
      for (int kind = 0; kind < 3; ++kind) {
        const bool grouped = kind != 0;
        const ops::RouterSpec spec = {
            .score = score,
            .group_score = static_cast<ops::RouterGroupScore>(kind),
            .correction_bias = random.below(2) == 0,
            .renormalize = random.below(2) == 0,
            .num_groups = grouped ? 4 : 1,
            .topk_groups = grouped ? 2 : 1,
            .topk = num_experts == 8 ? 2 : static_cast<int32_t>(random.between(1, 16)),
            .scaling = 2.5F};
        good = check_gate(spec, num_experts, random) && good;
      }
    }
  }
  return good;
}

// Only instance 0 comes: by deadline, then by abort.
bool check_failures(const comm::ExchangeCapacity& capacity, bool aborts) {
  Heaps heaps(capacity, plain_heaps);
  must_cuda(cudaSetDevice(heaps.device(0)));
  Member member(capacity, heaps.view(0), 64);
  const auto start = std::chrono::steady_clock::now();
  member.start_step(1);
  member.dispatch(0);
  if (aborts) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    heaps.group().abort("instance 1 is gone");
  }
  member.synchronize();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::string expected = aborts ? "instance 1 is gone"
                                      : "instance 0 waited 3.0 s for instance 1: dispatch, epoch "
                                        "1, last seen 0";
  const bool good = heaps.failure() == expected && (aborts ? seconds < 1.0 : seconds < 4.0);
  std::printf("check %s: after %.2f s \"%s\" %s\n", aborts ? "abort" : "missing instance", seconds,
              heaps.failure().c_str(), good ? "ok" : "WRONG");
  return good;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  using namespace nanocp;  // NOLINT(google-build-using-namespace)
  // Code that is loaded at its first launch would wait for kernels that wait for it.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  const uint64_t steps = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 400;
  plain_heaps = argc > 2;
  bool good = check_gates();
  good = check_chain(capacity_of(1, 40, 2048, 32, 128, 128), 128, steps / 4) && good;
  good = check_chain(capacity_of(2, 40, 2048, 32, 128, 128), 128, steps) && good;
  good = check_chain(capacity_of(2, 24, 7168, 128, 576, 512), 256, steps / 4) && good;
  good = check_chain(capacity_of(2, 200, 320, 4, 64, 64), 64, steps) && good;
  good = check_chain(capacity_of(3, 24, 256, 16, 64, 64), 64, steps / 4) && good;
  good = check_chain(capacity_of(4, 24, 512, 8, 128, 128), 96, steps / 4) && good;
  if (num_gpus() > 1 && !plain_heaps) {
    good = check_failures(capacity_of(2, 8, 256, 4, 64, 64), false) && good;
    good = check_failures(capacity_of(2, 8, 256, 4, 64, 64), true) && good;
  }
  std::printf("%s\n", good ? "all checks passed" : "CHECKS FAILED");
  return good ? 0 : 1;
}
