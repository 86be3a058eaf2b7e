#include "apps/split_flags.h"

#include "apps/in_range.h"

namespace nanocp::apps {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 40;
constexpr int kDegreeMax = 1 << 16;

}  // namespace

void add_split_flags(CLI::App& command, const char* group, const SplitFlags& flags) {
  command
      .add_option("--max-cp-degree", flags.max_cp_degree,
                  "Instances that may hold one request's KV cache, under any policy (default: all)")
      ->check(in_range(1, kDegreeMax))
      ->type_name("N")
      ->group(group);
  command
      .add_option("--cp-threshold", flags.cp_threshold_tokens,
                  "Prompts longer than this get the degree (threshold_cp)")
      ->check(in_range<int64_t>(0, kTokensMax))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--min-tokens-per-shard", flags.min_tokens_per_shard,
                  "Less is not worth another holder (dcp)")
      ->check(in_range<int64_t>(1, kTokensMax))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(group);
}

}  // namespace nanocp::apps
