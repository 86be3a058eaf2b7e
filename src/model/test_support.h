// For tests: scratch directories and hand-made checkpoints.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/check.h"

namespace nanocp::model {

// A directory of this test's own, removed at the end.
class ScratchDir {
 public:
  ScratchDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "nanocp-XXXXXX").string();
    NANOCP_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  NANOCP_CHECK(file.good());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A safetensors file with this header and `data_bytes` bytes of data.
inline std::string safetensors_text(const std::string& header, size_t data_bytes) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>((header.size() >> (8 * i)) & 255);
  return text + header + std::string(data_bytes, '\x3f');
}

// Every small checkpoint with golden results.
inline const std::vector<std::string>& fixture_names() {
  static const std::vector<std::string> names = {
      "qwen3_moe", "mixtral",       "deepseek_v2",   "deepseek_v3",    "gpt_oss",
      "glm4_moe",  "gpt_oss_mxfp4", "qwen3_moe_fp8", "deepseek_v3_fp8"};
  return names;
}

inline std::filesystem::path fixture_dir(const std::string& name) {
  return std::filesystem::path("tests/fixtures") / name;
}

}  // namespace nanocp::model
