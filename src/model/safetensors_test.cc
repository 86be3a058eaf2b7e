#include "model/safetensors.h"

#include <gtest/gtest.h>

#include "model/test_support.h"

namespace nanocp::model {
namespace {

Result<std::vector<TensorEntry>> parse_text(const std::string& text) {
  return parse_safetensors({reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                           "model.safetensors");
}

TEST(Safetensors, ReadsNamesTypesShapesAndPlaces) {
  const std::string header =
      R"({"__metadata__": {"format": "pt"},)"
      R"( "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},)"
      R"( "b": {"data_offsets": [0, 4], "shape": [], "dtype": "F32"},)"
      R"( "empty": {"dtype": "F32", "shape": [0, 9], "data_offsets": [16, 16]}})";
  const auto tensors = parse_text(safetensors_text(header, 16));
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3U);
  const TensorEntry& a = (*tensors)[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type, StoredType::kBf16);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.begin, 8 + header.size() + 4);
  EXPECT_EQ(a.end, 8 + header.size() + 16);
}

struct BadHeader {
  const char* header;
  const char* wanted;
};

// All with 16 bytes of data.
const BadHeader kBadHeaders[] = {
    {R"([])", "a list"},
    {R"(5)", "instead of an object"},
    {R"({)", "not valid JSON"},
    {R"({"a": 1})", "tensor \"a\" has the number 1"},
    {R"({"a": {"dtype": "F32", "shape": [4]}})", "lacks dtype, shape or data_offsets"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}})", "fewer than two"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 3]}})", "more than two"},
    {R"({"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}})", "dtype \"F99\""},
    {R"({"a": {"dtype": 3, "shape": [4], "data_offsets": [0, 16]}})", "the number 3"},
    {R"({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}})", "-4"},
    {R"({"a": {"dtype": "F32", "shape": [4.5], "data_offsets": [0, 16]}})", "4.5"},
    {R"({"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 16]}})", "1e999"},
    {R"({"a": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 16]}})",
     "99999999999999999999"},
    {R"({"a": {"dtype": "F32", "shape": [9300000000000000000], "data_offsets": [0, 16]}})",
     "too large"},
    {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296, 1], "data_offsets": [0, 16]}})",
     "too large to count"},
    {R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,4], "data_offsets": [0, 16]}})",
     "more than 8 dimensions"},
    {R"({"a": {"dtype": "F32", "shape": [[4]], "data_offsets": [0, 16]}})", "a list"},
    {R"({"a": {"dtype": "F32", "shape": {"x": 4}, "data_offsets": [0, 16]}})", "an object"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 0]}})", "run backwards"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}})", "holds 16 bytes"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 18446744073709551615]}})",
     "holds 16 bytes"},
    {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}})", "needs 12 bytes"},
    {R"({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}})", "whole bytes"},
    {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "extra": 1}})", "\"extra\""},
    {R"({"a": {"dtype": "F32", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
     "gives dtype twice"},
    {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
         "a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
     "listed twice"},
    {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
         "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
     "\"a\" and tensor \"b\" overlap"},
    {R"({"__metadata__": {"x": [1]}})", "__metadata__"},
    {"{\"\xff\": 1}", "\\xff"},
};

TEST(Safetensors, RefusesBadHeadersAndSaysWhy) {
  for (const BadHeader& bad : kBadHeaders) {
    const auto tensors = parse_text(safetensors_text(bad.header, 16));
    ASSERT_FALSE(tensors.ok()) << bad.header;
    const std::string& message = tensors.error().message;
    EXPECT_NE(message.find(bad.wanted), std::string::npos) << bad.header << "\n" << message;
    EXPECT_TRUE(message.starts_with("model.safetensors")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Safetensors, RefusesNestingWithoutRecursion) {
  for (const std::string& open : {std::string("["), std::string("{\"a\":")}) {
    std::string header;
    for (int i = 0; i < 100'000; ++i) header += open;
    EXPECT_FALSE(parse_text(safetensors_text(header, 16)).ok());
  }
}

TEST(Safetensors, RefusesHeaderSizesAboveLimitAndFile) {
  std::string huge = safetensors_text("{}", 0);
  huge[4] = 1;  // 2^32 + 2
  EXPECT_NE(parse_text(huge).error().message.find("limit of 100000000"), std::string::npos);
  std::string beyond = safetensors_text("{}", 0);
  beyond[0] = 3;
  EXPECT_NE(parse_text(beyond).error().message.find("does not fit"), std::string::npos);
}

TEST(Safetensors, RefusesAFileCutAnywhere) {
  const std::string whole =
      safetensors_text(R"({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}})", 16);
  ASSERT_TRUE(parse_text(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto tensors = parse_text(whole.substr(0, size));
    ASSERT_FALSE(tensors.ok()) << size;
    EXPECT_NE(tensors.error().message.find("truncated?"), std::string::npos)
        << tensors.error().message;
  }
}

}  // namespace
}  // namespace nanocp::model
