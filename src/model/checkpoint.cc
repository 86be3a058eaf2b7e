#include "model/checkpoint.h"

#include <utility>

#include "model/json_document.h"
#include "model/mapped_file.h"
#include "model/printable.h"
#include "model/safetensors.h"

namespace nanocp::model {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr int64_t kIndexBytesMax = 256'000'000;

Result<Checkpoint::Tensors> open_file(const std::filesystem::path& path) {
  NANOCP_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::open(path));
  NANOCP_ASSIGN_OR_RETURN(std::vector<TensorEntry> entries,
                          parse_safetensors(file->bytes(), file->name()));
  Checkpoint::Tensors tensors;
  for (TensorEntry& entry : entries) {
    StoredTensor tensor{.type = entry.type,
                        .shape = std::move(entry.shape),
                        .bytes = file->bytes().subspan(entry.begin, entry.end - entry.begin),
                        .owner = file,
                        .file_name = file->name()};
    tensors.emplace(std::move(entry.name), std::move(tensor));
  }
  return tensors;
}

// A shard is a plain file name: anything else could reach out of the directory.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

using WeightMap = std::map<std::string, std::vector<std::string>>;  // shard -> its tensors

Result<WeightMap> read_index(const std::filesystem::path& path) {
  const std::string name = display_name(path);
  NANOCP_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kIndexBytesMax));
  NANOCP_ASSIGN_OR_RETURN(const nlohmann::json index, parse_json(text, name));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
    return invalid_argument(name + " has no weight_map that names tensors and their files");
  }
  WeightMap shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>())) {
      const std::string found = shard.is_string() ? shard.get<std::string>() : shard.type_name();
      return invalid_argument(name + ": weight_map sends \"" + printable(tensor) + "\" to \"" +
                              printable(found) + "\", which is not a file name in the directory");
    }
    shards[shard.get<std::string>()].push_back(tensor);
  }
  return shards;
}

Status add_shard(const std::filesystem::path& path, const std::vector<std::string>& names,
                 Checkpoint::Tensors& tensors) {
  auto opened = open_file(path);
  if (!opened.ok() && opened.error().code == ErrorCode::kNotFound) {
    return not_found(display_name(path) + ": no such file, though " + kIndexName +
                     " lists it: incomplete download?");
  }
  NANOCP_ASSIGN_OR_RETURN(Checkpoint::Tensors found, std::move(opened));
  for (const std::string& name : names) {
    auto node = found.extract(name);
    if (node.empty()) {
      return not_found(display_name(path) + ": tensor \"" + printable(name) +
                       "\" is not in it, though " + kIndexName + " says so");
    }
    tensors.insert(std::move(node));
  }
  return ok_status();
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  const std::string name = display_name(model_dir);
  if (std::filesystem::exists(model_dir / kSingleName, ignored)) {
    NANOCP_ASSIGN_OR_RETURN(Tensors tensors, open_file(model_dir / kSingleName));
    return Checkpoint(name, std::move(tensors));
  }
  if (!std::filesystem::exists(model_dir / kIndexName, ignored)) {
    return not_found(name + " holds neither " + kSingleName + " nor " + kIndexName +
                     ": not a checkpoint directory, or an incomplete download");
  }
  NANOCP_ASSIGN_OR_RETURN(const WeightMap shards, read_index(model_dir / kIndexName));
  Tensors tensors;
  for (const auto& [shard, names] : shards) {
    NANOCP_RETURN_IF_ERROR(add_shard(model_dir / shard, names, tensors));
  }
  return Checkpoint(name, std::move(tensors));
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace nanocp::model
