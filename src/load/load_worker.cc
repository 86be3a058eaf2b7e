#include "load/load_worker.h"

#include <algorithm>

#include "base/clock.h"
#include "load/answer_reader.h"

namespace nanocp::load {
namespace {

constexpr int64_t kTickUs = 10'000;

}  // namespace

// A request under way.
class Worker::Stream final : public http_client::Receiver {
 public:
  Stream(Worker& worker, RequestRecord record) : worker_(worker), record_(std::move(record)) {}

  void on_head(int status, std::string_view content_type) override {
    reader_.take_head(status, content_type);
  }

  bool on_body(std::string_view bytes, int64_t now_us) override {
    int64_t num_new = 0;
    const bool goes_on = reader_.take_body(bytes, num_new);
    if (num_new > 0) take_tokens(num_new, now_us - worker_.run_.origin_us);
    return goes_on;
  }

  void on_end(http_client::End end, const std::string& detail, int64_t now_us) override {
    record_.end_us = now_us - worker_.run_.origin_us;
    if (end == http_client::End::kComplete) reader_.finish();
    record_.error = reader_.error();
    record_.detail = reader_.detail();
    if (record_.error.empty() && end == http_client::End::kCancelled) {
      record_.is_cancelled = true;
    } else if (record_.error.empty() && end != http_client::End::kComplete) {
      record_.error = to_string(end);
      record_.detail = detail;
    }
    record_.has_usage = reader_.has_usage();
    record_.num_output_tokens = reader_.num_output_tokens();
    if (record_.num_prompt_tokens == 0) record_.num_prompt_tokens = reader_.num_prompt_tokens();
    worker_.end(std::move(record_), itl_us_);
  }

 private:
  void take_tokens(int64_t num_new, int64_t now_us) {
    worker_.run_.num_tokens += num_new;
    if (record_.first_token_us < 0) {
      record_.first_token_us = now_us;
    } else {
      const auto gap_us = static_cast<double>(now_us - record_.last_token_us);
      itl_us_.push_back(static_cast<float>(gap_us));
      record_.itl_max_us = std::max(record_.itl_max_us, gap_us);
    }
    record_.last_token_us = now_us;
  }

  Worker& worker_;
  RequestRecord record_;
  AnswerReader reader_;
  std::vector<float> itl_us_;  // until it is known whether it counts
};

Worker::Worker(RunState& run, const http_client::Options& options) : run_(run), client_(options) {}

void Worker::start() {
  client_.post([this] { tick(SteadyClock().now_us()); });
  thread_ = std::thread([this] { client_.run(); });
}

void Worker::join() {
  client_.post([this] { client_.cancel_all(); });
  client_.stop();
  thread_.join();
}

void Worker::hand_over(std::shared_ptr<PendingRequest> pending) {
  client_.post([this, pending = std::move(pending)] {
    if (!pending->is_due) {
      begin(*pending);
      return;
    }
    client_.at(run_.origin_us + pending->arrival.time_us, [this, pending] { begin(*pending); });
  });
}

void Worker::begin(PendingRequest& pending) {
  if (run_.is_stopping) return;  // nobody waits for it any more
  RequestRecord record;
  record.index = pending.index;
  record.start_us = SteadyClock().now_us() - run_.origin_us;
  record.arrival_us = pending.is_due ? pending.arrival.time_us : record.start_us;
  record.num_prompt_tokens = pending.arrival.num_prompt_tokens;
  record.num_output_tokens_asked = pending.arrival.num_output_tokens;
  record.is_measured = record.arrival_us >= pending.warmup_us;
  ++run_.num_started;
  client_.send(std::move(pending.request), std::make_shared<Stream>(*this, std::move(record)));
}

void Worker::end(RequestRecord record, const std::vector<float>& itl_us) {
  if (!record.error.empty()) ++run_.num_failed;
  if (record.is_measured && record.is_finished()) {
    auto& of_class =
        itl_by_class_[static_cast<size_t>(sim::length_class(record.num_prompt_tokens))];
    for (const float gap_us : itl_us) {
      itl_.add(gap_us);
      of_class.add(gap_us);
    }
  }
  records_.push_back(std::move(record));
  run_.on_request_end();
}

void Worker::tick(int64_t due_us) {
  const int64_t now_us = SteadyClock().now_us();
  if (due_us >= run_.origin_us) loop_lag_.add(static_cast<double>(now_us - due_us));
  const int64_t next_us = std::max(due_us + kTickUs, now_us);
  client_.at(next_us, [this, next_us] { tick(next_us); });
}

void Worker::collect(LoadResult& result, LatencyHistogram& loop_lag) {
  result.records.insert(result.records.end(), std::make_move_iterator(records_.begin()),
                        std::make_move_iterator(records_.end()));
  result.itl.merge(itl_);
  for (size_t i = 0; i < itl_by_class_.size(); ++i) {
    result.itl_by_class[i].merge(itl_by_class_[i]);
  }
  loop_lag.merge(loop_lag_);
}

}  // namespace nanocp::load
