// Rotary position embedding (Su et al., 2021) with linear and YaRN (Peng et al., 2023) scaling.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/matrix.h"

namespace nanocp::ops {

enum class RotaryScaling { kNone, kLinear, kYarn };

struct RotarySpec {
  int32_t rotary_dim = 0;  // dims of a head that rotate
  double theta = 10000.0;
  bool interleaved = false;  // pairs (0,1),(2,3).. instead of (0,d/2),(1,d/2+1)..
  RotaryScaling scaling = RotaryScaling::kNone;
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;  // YaRN: round the correction range to whole dims
  int64_t original_max_position = 0;
  double cos_sin_scale = 1.0;  // YaRN's attention factor on cos and sin

  bool operator==(const RotarySpec&) const = default;
};

// Angle per position of each pair of dims, [rotary_dim / 2].
std::vector<float> rotary_frequencies(const RotarySpec& spec);

// cos and sin of a step's rows; computed once and used by every layer. One thread.
class RotaryTable {
 public:
  explicit RotaryTable(const RotarySpec& spec);

  // Fills the table for these positions, one row each.
  void prepare(std::span<const int32_t> positions);

  // Rotates, in place, the `rotary_dim` columns from `first_col` of each of `num_heads` heads that
  // are `head_stride` columns apart. x [positions.size(), >= (num_heads-1) * head_stride + ...].
  struct Heads {
    int num_heads;
    int64_t head_stride;
    int64_t first_col;
  };
  void apply(tensor::Matrix x, const Heads& heads) const;

 private:
  const RotarySpec spec_;
  const std::vector<float> frequencies_;
  tensor::MatrixBuffer cos_;  // [rows, rotary_dim / 2]
  tensor::MatrixBuffer sin_;
};

}  // namespace nanocp::ops
