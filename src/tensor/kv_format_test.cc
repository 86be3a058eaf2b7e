#include "tensor/kv_format.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace nanocp::tensor {
namespace {

// The codes of one sign in rising order, without the NaN code.
constexpr int kNumCodes = 0x7f;

TEST(KvFormat, E4m3CodesSurviveARoundTrip) {
  for (int code = 0; code < kNumCodes; ++code) {
    for (const int sign : {0, 0x80}) {
      const auto byte = static_cast<uint8_t>(code | sign);
      EXPECT_EQ(encode_e4m3(decode_e4m3(byte)), byte);
    }
  }
  EXPECT_EQ(decode_e4m3(0x7e), kE4m3Max);
  EXPECT_EQ(decode_e4m3(0x38), 1.0F);
  EXPECT_EQ(decode_e4m3(0x01), 0x1p-9F);
}

TEST(KvFormat, E4m3RoundsToTheNearestEvenCode) {
  for (int code = 0; code + 1 < kNumCodes; ++code) {
    const float low = decode_e4m3(static_cast<uint8_t>(code));
    const float high = decode_e4m3(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(encode_e4m3(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(encode_e4m3(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(encode_e4m3(std::nextafter(middle, 1e9F)), code + 1);
  }
  EXPECT_EQ(encode_e4m3(1e9F), 0x7e);
  EXPECT_EQ(encode_e4m3(-1e9F), 0xfe);
}

TEST(KvFormat, ExponentIsTheSmallestThatFits) {
  Random random(3);
  for (int i = 0; i < 10'000; ++i) {
    const auto exponent = static_cast<int>(random.between(-100, 100));
    const float largest = std::ldexp(static_cast<float>(1.0 + random.uniform()), exponent);
    const uint8_t byte = kv_exponent(largest);
    EXPECT_LE(largest, kE4m3Max * kv_scale(byte));
    EXPECT_GT(largest, kE4m3Max * kv_scale(static_cast<uint8_t>(byte - 1)));
  }
  EXPECT_EQ(kv_exponent(kE4m3Max), 127);
  EXPECT_EQ(kv_exponent(0.0F), 1);
}

TEST(KvFormat, Bf16RoundsToTheNearestEvenCode) {
  EXPECT_EQ(encode_bf16(1.0F), 0x3f80);
  EXPECT_EQ(encode_bf16(1.0F + 0x1p-8F), 0x3f80);
  EXPECT_EQ(encode_bf16(1.0F + 0x3p-8F), 0x3f82);
  EXPECT_EQ(encode_bf16(-2.5F), 0xc020);
  EXPECT_EQ(decode_bf16(0xc020), -2.5F);
  EXPECT_TRUE(std::isnan(decode_bf16(encode_bf16(NAN))));
}

TEST(KvFormat, BytesOfATokenIncludeItsExponent) {
  EXPECT_EQ(kv_token_bytes(KvFormat::kF32, 128), 512);
  EXPECT_EQ(kv_token_bytes(KvFormat::kBf16, 128), 256);
  EXPECT_EQ(kv_token_bytes(KvFormat::kFp8, 128), 129);
  EXPECT_EQ(kv_token_values(KvFormat::kBf16, 128), 128);
  EXPECT_EQ(kv_token_values(KvFormat::kFp8, 128), 129);
}

}  // namespace
}  // namespace nanocp::tensor
