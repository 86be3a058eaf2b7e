// Ties the tensors of a checkpoint to the fields of ModelWeights: finds and checks each tensor,
// makes views, and collects the work that is left (transposing, reading pages in) as jobs.
#pragma once

#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.h"
#include "model/load_jobs.h"
#include "model/weight_layout.h"

namespace nanocp::model {

class WeightBinder final : public WeightVisitor {
 public:
  // Both outlive the binder; the checkpoint also outlives the jobs. `read_ahead` adds jobs that
  // touch every page of what is kept.
  WeightBinder(const ModelSpec& spec, const Checkpoint& checkpoint, bool read_ahead)
      : spec_(spec), checkpoint_(checkpoint), read_ahead_(read_ahead) {}

  Status linear(const LinearRequest& request, LinearWeights& out) override;
  Status vector(const std::string& name, int64_t size, std::vector<float>& out) override;
  Status latent_up(const LinearRequest& request, const AttentionSpec& attention,
                   MlaWeights& out) override;
  Status fused_experts(const FusedExpertsRequest& request,
                       std::vector<GatedMlpWeights>& out) override;

  // To be run before the weights are used, in any order.
  const std::vector<LoadJob>& jobs() const { return jobs_; }
  // What the views point into, each once.
  std::vector<std::shared_ptr<const void>> owners() const {
    return {owners_.begin(), owners_.end()};
  }
  // Tensors of the checkpoint that nothing asked for, as one line; empty if none.
  std::string describe_unused() const;

 private:
  Result<const StoredTensor*> find(const std::string& name, std::vector<int64_t> shape);
  Status check_type(const std::string& name, const StoredTensor& tensor,
                    std::initializer_list<StoredType> allowed) const;
  Result<tensor::WeightView> matrix(const std::string& name, int64_t rows, int64_t cols);
  Status add_fp8_scales(const std::string& name, tensor::WeightView& view);
  // The tensor's bytes, kept alive with the weights; a copy where the file has them unaligned.
  const uint8_t* keep(const StoredTensor& tensor);
  void read_pages(std::span<const uint8_t> bytes);

  tensor::WeightView transpose_later(const tensor::WeightView& source, uint8_t* target);
  Status fused_plain(const FusedExpertsRequest& request, std::vector<GatedMlpWeights>& out);
  Status fused_mxfp4(const FusedExpertsRequest& request, std::vector<GatedMlpWeights>& out);
  Status fused_biases(const FusedExpertsRequest& request, std::vector<GatedMlpWeights>& out);
  Result<tensor::WeightView> fused_plain_tensor(const std::string& name, int64_t num_experts,
                                                int64_t rows, int64_t cols);
  Result<tensor::WeightView> fused_mxfp4_tensor(const std::string& name, int64_t num_experts,
                                                int64_t rows, int64_t cols);

  const ModelSpec& spec_;
  const Checkpoint& checkpoint_;
  const bool read_ahead_;
  std::set<std::string_view> used_;  // names within checkpoint_
  std::set<std::shared_ptr<const void>> owners_;
  std::vector<LoadJob> jobs_;
};

}  // namespace nanocp::model
