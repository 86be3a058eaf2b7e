// The tensors of a model directory by name: one `model.safetensors`, or the shards that
// `model.safetensors.index.json` lists. Owns the mappings through each tensor's `owner`.
// Immutable once filled; any thread may read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/stored_type.h"

namespace nanocp::model {

struct StoredTensor {
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;     // shape x type, checked
  std::shared_ptr<const void> owner;  // keeps `bytes` alive
  std::string file_name;              // for messages
};

class Checkpoint {
 public:
  using Tensors = std::map<std::string, StoredTensor, std::less<>>;

  static Result<Checkpoint> open(const std::filesystem::path& model_dir);
  Checkpoint(std::string name, Tensors tensors)
      : name_(std::move(name)), tensors_(std::move(tensors)) {}

  // Null if there is none.
  const StoredTensor* find(std::string_view name) const;
  const Tensors& tensors() const { return tensors_; }
  // Where the tensors come from, for messages.
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  Tensors tensors_;
};

}  // namespace nanocp::model
