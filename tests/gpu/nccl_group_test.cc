// The NCCL transport by itself: which bytes arrive where, and how waits for an instance that does
// not come end. Needs two GPUs.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/device_info.h"
#include "base/clock.h"
#include "comm/nccl/nccl_group.h"

namespace nanocp::comm {
namespace {

using cuda::WaitPurpose;

constexpr int64_t kTimeoutUs = 1'000'000;
constexpr int32_t kHidden = 64;
constexpr int32_t kMaxRows = 16;
constexpr int32_t kBlockSize = 16;

// One layer of latent attention with rows of 64 values, without queries of size.
NcclGroup::Options group_options() {
  return {.devices = {0, 1},
          .capacity = {.num_instances = 2,
                       .max_rows = kMaxRows,
                       .hidden = kHidden,
                       .topk = 2,
                       .num_heads = 1,
                       .query_values = 64,
                       .partial_values = 64,
                       .kv_cache_bytes = 4 * kBlockSize * kHidden * 2},
          .kv_row_bytes = kHidden * 2,
          .kv_staging_slot = 2 * kBlockSize,
          .timeout_us = kTimeoutUs};
}

cuda::CacheRows cache_of(const cuda::ExchangeView& view) {
  cuda::CacheRows cache;
  cache.layout.k_offset = view.offsets.kv_cache;
  cache.layout.v_offset = view.offsets.kv_cache;
  cache.layout.block_size = kBlockSize;
  cache.layout.head_stride = kBlockSize * kHidden;
  cache.layout.block_stride = kBlockSize * kHidden;
  cache.num_heads = 1;
  cache.token_values = kHidden;
  return cache;
}

// Each instance has `rows` rows; where `splits`, row 0 of each is sent to the other, with its K/V
// to slot 5.
std::vector<InstancePlan> make_plans(int32_t rows, bool splits = true) {
  std::vector<InstancePlan> plans(2);
  for (InstanceId i = 0; i < 2; ++i) {
    InstancePlan& plan = plans[static_cast<size_t>(i)];
    plan.reset(2);
    plan.token_ids.assign(static_cast<size_t>(rows), 1);
    if (!splits) continue;
    plan.query_sends.add(1 - i, 0);
    plan.kv_sends.add(1 - i, 0);
    plan.num_query_receives[static_cast<size_t>(1 - i)] = 1;
    plan.num_kv_receives[static_cast<size_t>(1 - i)] = 1;
    plan.appends.push_back({.source = 1 - i, .row = 0, .slot = 5});
  }
  return plans;
}

class Instance {
 public:
  Instance(NcclGroup& group, InstanceId id) : group_(group), id_(id) {
    EXPECT_EQ(cudaSetDevice(id), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    view_ = group.view(id);
    EXPECT_EQ(cudaMemcpy(bases_, view_.base, sizeof(bases_), cudaMemcpyDeviceToHost), cudaSuccess);
  }
  ~Instance() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  uint8_t* base(InstanceId instance) const { return bases_[instance]; }
  const cuda::ExchangeView& view() const { return view_; }
  Status begin(const std::vector<InstancePlan>& plans) {
    return group_.link(id_)->begin_step(plans, stream_);
  }
  Status carry(WaitPurpose purpose, uint64_t epoch) {
    return group_.link(id_)->carry(purpose, epoch, cache_of(view_), stream_);
  }
  // Ends with the stream or with the link's failure.
  Status wait() {
    while (cudaStreamQuery(stream_) == cudaErrorNotReady) {
      NANOCP_RETURN_IF_ERROR(group_.link(id_)->watch());
    }
    return ok_status();
  }
  std::vector<uint8_t> read(int64_t offset, int64_t bytes) const {
    std::vector<uint8_t> data(static_cast<size_t>(bytes));
    EXPECT_EQ(cudaMemcpy(data.data(), bases_[id_] + offset, data.size(), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return data;
  }
  void fill(uint8_t* at, int value, int64_t bytes) const {
    EXPECT_EQ(cudaMemset(at, value, static_cast<size_t>(bytes)), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

 private:
  NcclGroup& group_;
  const InstanceId id_;
  cudaStream_t stream_ = nullptr;
  cuda::ExchangeView view_;
  uint8_t* bases_[2] = {};
};

std::unique_ptr<NcclGroup> make_group() {
  auto group = NcclGroup::create(group_options());
  EXPECT_TRUE(group.ok()) << group.error().message;
  return group.ok() ? std::move(group).value() : nullptr;
}

class NcclGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto devices = backend::list_devices();
    if (!devices.ok() || devices->size() < 2) GTEST_SKIP() << "needs two GPUs";
    group_ = make_group();
    ASSERT_NE(group_, nullptr);
  }
  std::unique_ptr<NcclGroup> group_;
};

// Rows of 1 + id, K/V of 11 + id; nothing beyond the rows that the plan names.
void exchange_rows(NcclGroup& group, InstanceId id) {
  Instance instance(group, id);
  const InstanceId other = 1 - id;
  const cuda::ExchangeOffsets& at = instance.view().offsets;
  constexpr int64_t kRowBytes = kHidden * 2;
  constexpr int32_t kRows = 3;
  instance.fill(instance.base(other), 1 + id, at.kv_cache);
  instance.fill(instance.base(id) + at.kv_cache + 2 * kBlockSize * kRowBytes, 11 + id, kRowBytes);
  ASSERT_TRUE(instance.begin(make_plans(kRows)).ok());
  uint64_t epoch = 0;
  for (const auto purpose : {WaitPurpose::kQuery, WaitPurpose::kPartial, WaitPurpose::kDispatch,
                             WaitPurpose::kCombine}) {
    ASSERT_TRUE(instance.carry(purpose, ++epoch).ok());
  }
  ASSERT_TRUE(instance.wait().ok());
  const auto expect_rows = [&](int64_t region, int64_t row, int64_t num_rows) {
    const auto bytes = instance.read(region + row * kRowBytes, (num_rows + 1) * kRowBytes);
    const auto end = bytes.begin() + num_rows * kRowBytes;
    EXPECT_EQ(std::count(bytes.begin(), end, 1 + other), num_rows * kRowBytes);
    EXPECT_EQ(std::count(end, bytes.end(), 0), kRowBytes);
  };
  expect_rows(at.query, (1 + other) * kMaxRows, 1);
  expect_rows(at.partial_out, other * kMaxRows, 1);
  expect_rows(at.dispatch_x, other * kMaxRows, kRows);
  expect_rows(at.combine, other * kMaxRows, kRows);
  const auto kv = instance.read(at.kv_cache + 5 * kRowBytes, kRowBytes);
  EXPECT_EQ(std::count(kv.begin(), kv.end(), 11 + other), kRowBytes);
}

TEST_F(NcclGroupTest, RowsArriveInTheirSlots) {
  std::thread peer([this] { exchange_rows(*group_, 1); });
  exchange_rows(*group_, 0);
  peer.join();
}

// What runs before the first step has no exchange to wait for.
TEST_F(NcclGroupTest, NothingIsMissedBeforeTheFirstStep) {
  EXPECT_TRUE(group_->link(0)->watch().ok());
}

TEST_F(NcclGroupTest, MissingInstanceIsReportedByName) {
  const SteadyClock clock;
  Instance instance(*group_, 0);
  ASSERT_TRUE(instance.begin(make_plans(1, false)).ok());
  ASSERT_TRUE(instance.carry(WaitPurpose::kDispatch, 7).ok());
  ASSERT_TRUE(instance.carry(WaitPurpose::kQuery, 8).ok());  // moves nothing
  const int64_t start_us = clock.now_us();
  const Status status = instance.wait();
  const int64_t waited_us = clock.now_us() - start_us;
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(status.error().message,
            "instance 0 waited 1.0 s for instance 1: dispatch, epoch 7, exchange 1, last seen 0");
  EXPECT_LT(waited_us, 2 * kTimeoutUs);
  group_->leave(0);
  EXPECT_LT(clock.now_us() - start_us, 10 * kTimeoutUs);
  EXPECT_EQ(group_->failure().error().message, status.error().message);
}

// Once the GPU stands still no more than a few exchanges are enqueued.
TEST_F(NcclGroupTest, EnqueueingEndsAtTheDeadlineToo) {
  Instance instance(*group_, 0);
  ASSERT_TRUE(instance.begin(make_plans(1)).ok());
  Status status = ok_status();
  uint64_t epoch = 0;
  while (status.ok() && epoch < 1000) status = instance.carry(WaitPurpose::kCombine, ++epoch);
  ASSERT_FALSE(status.ok());
  EXPECT_LT(epoch, 20U);
  EXPECT_NE(status.error().message.find("for instance 1: combine, epoch 1,"), std::string::npos)
      << status.error().message;
  group_->leave(0);
}

TEST_F(NcclGroupTest, AbortEndsWaits) {
  const SteadyClock clock;
  Instance instance(*group_, 0);
  ASSERT_TRUE(instance.begin(make_plans(1)).ok());
  ASSERT_TRUE(instance.carry(WaitPurpose::kDispatch, 1).ok());
  const int64_t start_us = clock.now_us();
  group_->abort("stopped by the test");
  const Status status = instance.wait();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kAborted);
  EXPECT_EQ(status.error().message, "stopped by the test");
  EXPECT_LT(clock.now_us() - start_us, kTimeoutUs / 2);
  group_->leave(0);
  EXPECT_FALSE(instance.begin(make_plans(1)).ok());
  EXPECT_FALSE(instance.carry(WaitPurpose::kDispatch, 2).ok());
}

}  // namespace
}  // namespace nanocp::comm
