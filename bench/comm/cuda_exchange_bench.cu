// Exchange over NVLink between GPUs of this host, inside CUDA graphs of chained iterations:
// dispatch, plan and combine of expert rows, and what a shard exchange adds to a layer's attention.
// Times are of the slowest GPU, per iteration. --shared lets instances share GPUs, to try the
// program where there are too few: attention is left out then (its kernels want a GPU each), and
// the times mean nothing. Usage: cuda_exchange_bench --time [--gpus N] [--shared]
#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "bench/comm/cuda_exchange_bench_member.h"

namespace nanocp {
namespace {

using bench::Heaps;

constexpr int kGpusMax = 8;
constexpr int32_t kSharedRowsMax = 8;  // more, and blocks that wait fill a GPU that others need

// Rows of every instance, each attended there and on the `degree` - 1 instances after it.
scheduler::StepPlan make_plan(int32_t instances, int32_t rows, int32_t degree,
                              std::vector<int32_t>& blocks, std::vector<int32_t>& block_idx) {
  blocks.resize(static_cast<size_t>(degree) * static_cast<size_t>(rows));
  block_idx.assign(blocks.size(), 0);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  scheduler::StepPlan plan;
  plan.instances.resize(static_cast<size_t>(instances));
  for (auto& instance : plan.instances) instance.reset(instances);
  const auto item = [&](InstanceId source, int32_t row, int32_t block) {
    return AttentionItem{
        source,
        row,
        1,
        kContext - 1,
        1,
        std::span<const int32_t>(blocks).subspan(static_cast<size_t>(block), 1),
        std::span<const int32_t>(block_idx).subspan(static_cast<size_t>(block), 1)};
  };
  for (InstanceId i = 0; i < instances; ++i) {
    InstancePlan& own = plan.instances[static_cast<size_t>(i)];
    for (int32_t row = 0; row < rows; ++row) {
      own.token_ids.push_back(row);
      own.positions.push_back(kContext - 1);
      own.appends.push_back({i, row, int64_t{row} * kBlockSize + kContext - 1});
      own.items.push_back(item(i, row, row));
    }
  }
  for (InstanceId i = 0; i < instances; ++i) {
    for (int32_t further = 1; further < degree; ++further) {
      const InstanceId to = (i + further) % instances;
      InstancePlan& other = plan.instances[static_cast<size_t>(to)];
      for (int32_t row = 0; row < rows; ++row) {
        const int32_t slot = plan.instances[static_cast<size_t>(i)].query_sends.add(to, row);
        ++other.num_query_receives[static_cast<size_t>(i)];
        other.items.push_back(item(i, slot, further * rows + row));
      }
    }
  }
  return plan;
}

enum class Part { kDispatch, kDispatchAndCombine, kAttention };

struct Setup {
  int32_t instances;
  bool shared;
};

// Runs the same on all instances, each from its own thread; the slowest one's time.
double time_on_all(const Setup& setup, const Shape& shape, int32_t rows, Part part,
                   int32_t degree = 1) {
  std::vector<int32_t> blocks, block_idx;
  const scheduler::StepPlan plan = make_plan(setup.instances, rows, degree, blocks, block_idx);
  Heaps heaps(capacity_of(shape, setup.instances, std::max(rows, 8)), setup.shared);
  std::barrier meet(setup.instances);
  std::vector<double> times(static_cast<size_t>(setup.instances));
  std::vector<std::thread> threads;
  for (int i = 0; i < setup.instances; ++i) {
    threads.emplace_back([&, i] {
      must_cuda(cudaSetDevice(heaps.device(i)));
      Member member(shape, heaps.view(i), plan);
      if (part == Part::kAttention) member.schedule();
      const auto enqueue = [&](int iteration, cudaStream_t stream) {
        if (part == Part::kAttention) return member.attend(iteration, stream);
        member.dispatch(iteration, stream);
        if (part == Part::kDispatchAndCombine) member.combine(iteration, stream);
      };
      times[static_cast<size_t>(i)] = member.time(enqueue, meet);
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (const std::string failure = heaps.failure(); !failure.empty()) {
    std::fprintf(stderr, "error: %s\n", failure.c_str());
    std::exit(1);
  }
  return *std::max_element(times.begin(), times.end());
}

int run_times(const Setup& setup) {
  for (const Shape& shape : {kDeepseek, kQwen}) {
    for (const int32_t rows : {1, 8, 32, 64, 128}) {
      if (setup.shared && rows > kSharedRowsMax) break;
      std::printf(
          "time  %d GPUs, dispatch, plan, combine: %3d rows of %d values per GPU: %6.1f us, "
          "without the combine %5.1f\n",
          setup.instances, rows, shape.hidden,
          time_on_all(setup, shape, rows, Part::kDispatchAndCombine),
          time_on_all(setup, shape, rows, Part::kDispatch));
    }
  }
  if (setup.shared) {
    std::printf("instances share GPUs: attention is not run, and the times above mean nothing\n");
    return 0;
  }
  for (const Shape& shape : {kQwen, kDeepseek}) {
    for (const int32_t rows : {1, 4, 16}) {
      const double local = time_on_all(setup, shape, rows, Part::kAttention);
      for (int32_t degree = 2; degree <= setup.instances; degree *= 2) {
        const double split = time_on_all(setup, shape, rows, Part::kAttention, degree);
        std::printf(
            "time  %d GPUs, shard exchange at degree %d, %s, %2d rows per GPU: %6.1f us, without "
            "%5.1f, adds %5.1f\n",
            setup.instances, degree, shape.name, rows, split, local, split - local);
      }
    }
  }
  return 0;
}

int run(const Setup& setup) {
  if (setup.instances < 2 || setup.instances > kGpusMax) {
    std::fprintf(stderr, "error: --gpus must be 2 to %d, not %d\n", kGpusMax, setup.instances);
    return 1;
  }
  if (!setup.shared && setup.instances > bench::num_gpus()) {
    std::fprintf(stderr, "error: %d GPUs are asked for and %d are here; fewer, or --shared\n",
                 setup.instances, bench::num_gpus());
    return 1;
  }
  return run_times(setup);
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // a run that is cut off leaves what it had
  // Code that is loaded at its first launch would wait for kernels that wait for it.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  bool has_time = false;
  nanocp::Setup setup = {0, false};
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--time") == 0) {
      has_time = true;
    } else if (std::strcmp(argv[i], "--shared") == 0) {
      setup.shared = true;
    } else if (std::strcmp(argv[i], "--gpus") == 0 && i + 1 < argc) {
      setup.instances = std::atoi(argv[++i]);
    } else {
      has_time = false;
      break;
    }
  }
  if (!has_time) {
    std::fprintf(stderr, "usage: %s --time [--gpus N] [--shared]\n", argv[0]);
    return 1;
  }
  if (setup.instances == 0) setup.instances = std::min(nanocp::kGpusMax, nanocp::bench::num_gpus());
  return nanocp::run(setup);
}
