#include "model/checkpoint.h"

#include <gtest/gtest.h>

#include "model/test_support.h"

namespace nanocp::model {
namespace {

std::string one_tensor_file(const std::string& name) {
  return safetensors_text(
      "{\"" + name + R"(": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 8);
}

TEST(Checkpoint, GathersTheTensorsOfAllShards) {
  const ScratchDir dir;
  dir.write("first.safetensors", one_tensor_file("a"));
  dir.write("second.safetensors", one_tensor_file("b"));
  dir.write("model.safetensors.index.json",
            R"({"metadata": {"total_size": 16},
                "weight_map": {"a": "first.safetensors", "b": "second.safetensors"}})");
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  ASSERT_NE(checkpoint->find("a"), nullptr);
  ASSERT_NE(checkpoint->find("b"), nullptr);
  EXPECT_EQ(checkpoint->find("c"), nullptr);
  EXPECT_EQ(checkpoint->find("b")->shape, std::vector<int64_t>{2});
  EXPECT_EQ(checkpoint->find("b")->bytes.size(), 8U);
  EXPECT_EQ(checkpoint->find("b")->bytes[7], 0x3f);
}

struct BadIndex {
  std::string index;
  const char* wanted;
};

TEST(Checkpoint, RefusesBadIndexes) {
  const BadIndex cases[] = {
      {"{", "not valid JSON"},
      {"[]", "no weight_map"},
      {"{}", "no weight_map"},
      {R"({"weight_map": []})", "no weight_map"},
      {R"({"weight_map": {"a": 7}})", "weight_map sends \"a\""},
      {R"({"weight_map": {"a": "../good.safetensors"}})", "../good.safetensors"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "/etc/passwd"},
      {R"({"weight_map": {"a": "sub/good.safetensors"}})", "not a file name in the directory"},
      {R"({"weight_map": {"a": ".."}})", "not a file name in the directory"},
      {R"({"weight_map": {"a": ""}})", "not a file name in the directory"},
      {R"({"weight_map": {"a": "x\u0000y"}})", "x\\x00y"},
      {R"({"weight_map": {"a": "absent.safetensors"}})", "absent.safetensors: no such file"},
      {R"({"weight_map": {"b": "good.safetensors"}})", "tensor \"b\" is not in it"},
      {R"({"weight_map": {"a": "good.safetensors", "a": "good.safetensors"}})", "twice"},
      {R"({"weight_map": {"a": "text.safetensors"}})", "text.safetensors"},
  };
  const ScratchDir dir;
  dir.write("good.safetensors", one_tensor_file("a"));
  dir.write("text.safetensors", "not a checkpoint at all");
  for (const BadIndex& bad : cases) {
    dir.write("model.safetensors.index.json", bad.index);
    const auto checkpoint = Checkpoint::open(dir.path());
    ASSERT_FALSE(checkpoint.ok()) << bad.index;
    const std::string& message = checkpoint.error().message;
    EXPECT_NE(message.find(bad.wanted), std::string::npos) << bad.index << "\n" << message;
    EXPECT_TRUE(message.starts_with(dir.path().string())) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Checkpoint, RefusesDirectoriesWithoutWeightsAndOddFiles) {
  const ScratchDir dir;
  const auto none = Checkpoint::open(dir.path());
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_NE(none.error().message.find("model.safetensors.index.json"), std::string::npos);
  dir.write("model.safetensors", "");
  EXPECT_NE(Checkpoint::open(dir.path()).error().message.find("0 bytes"), std::string::npos);
  std::filesystem::remove(dir.path() / "model.safetensors");
  std::filesystem::create_directory(dir.path() / "model.safetensors");
  EXPECT_NE(Checkpoint::open(dir.path()).error().message.find("regular file"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::model
