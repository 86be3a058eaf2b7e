// Every instruction set of this processor computes what the plain definitions say.
#include <gtest/gtest.h>

#include "backend/cpu/simd/simd_kernels.h"
#include "base/random.h"
#include "ops/linear.h"
#include "ops/linear_test_data.h"

namespace nanocp::cpu {
namespace {

using namespace ops;  // NOLINT(google-build-using-namespace)

TEST(Simd, AllInstructionSetsDecodeAlike) {
  Random random(13);
  const SimdVariants variants = supported_simd_variants();
  for (const WeightFormat format : kFormats) {
    for (const int64_t cols : {32, 96, 160, 1024}) {
      const RandomWeight weight = make_weight(format, 9, cols, random);
      std::vector<float> got(static_cast<size_t>(cols));
      for (int v = 0; v < variants.count; ++v) {
        for (int64_t row = 0; row < 9; ++row) {
          variants.sets[v]->decode_row({&weight.view, row, 0, cols, got.data()});
          for (int64_t c = 0; c < cols; ++c) {
            ASSERT_EQ(got[static_cast<size_t>(c)], weight_element(weight.view, row, c))
                << variants.sets[v]->name << " " << tensor::to_string(format) << " " << c;
          }
        }
      }
    }
  }
}

TEST(Simd, AllInstructionSetsMultiplyAlike) {
  Random random(14);
  const SimdVariants variants = supported_simd_variants();
  for (const WeightFormat format : kFormats) {
    const RandomWeight weight = make_weight(format, 37, 352, random);
    tensor::MatrixBuffer x_buffer, got_buffer, want_buffer;
    const Matrix x = random_matrix(x_buffer, 7, 352, random);
    const Matrix got = got_buffer.resize(7, 37);
    const Matrix want = want_buffer.resize(7, 37);
    linear_reference(x, weight.view, {}, want);
    for (int v = 0; v < variants.count; ++v) {
      variants.sets[v]->linear_rows(
          {&weight.view, 0, 37, x.data, x.stride, x.rows, got.data, got.stride});
      EXPECT_LE(relative_error(got, want), kLinearTolerance) << variants.sets[v]->name;
    }
  }
}

}  // namespace
}  // namespace nanocp::cpu
