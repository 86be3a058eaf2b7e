#include "apps/model_lookup.h"

#include <algorithm>
#include <system_error>
#include <vector>

#include "model/printable.h"

namespace nanocp::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolder = "configs";
constexpr const char* kKnownConfig = "qwen3-30b-a3b.json";  // tells our folder from any other
constexpr int kParentsMax = 4;                              // as for the bundled model

bool has_configs(const fs::path& root, fs::path& found) {
  std::error_code error;
  found = root / kFolder;
  return fs::is_regular_file(found / kKnownConfig, error);
}

fs::path find_configs() {
  std::error_code error;
  fs::path found;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int i = 0; i < kParentsMax && !folder.empty(); ++i) {
    if (has_configs(folder, found) || has_configs(folder / "share/nanocp", found)) return found;
    if (folder == folder.parent_path()) break;
    folder = folder.parent_path();
  }
  return has_configs(NANOCP_SOURCE_DIR, found) ? found : fs::path();
}

std::string list_names(const fs::path& configs) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(configs, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".json") names.push_back(entry->path().stem().string());
  }
  std::sort(names.begin(), names.end());
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

}  // namespace

Result<fs::path> find_model_config(const std::string& model) {
  std::error_code error;
  const fs::path path(model);
  if (fs::is_directory(path, error)) return path / "config.json";
  if (fs::exists(path, error)) return path;
  const fs::path configs = find_configs();
  const bool is_name = !model.empty() && model.find('/') == std::string::npos;
  if (!configs.empty() && is_name) {
    const fs::path bundled = configs / (model + ".json");
    if (fs::is_regular_file(bundled, error)) return bundled;
  }
  const std::string names = configs.empty() ? "none found" : list_names(configs);
  return not_found(model::printable(model) +
                   ": no such directory, config file or bundled config (" + names + ")");
}

}  // namespace nanocp::apps
