#include "apps/model_lookup.h"

#include <algorithm>
#include <system_error>
#include <vector>

#include "model/printable.h"

namespace nanocp::apps {
namespace {

namespace fs = std::filesystem;

constexpr int kParentsMax = 4;  // as for the bundled model

// A folder that comes with the program.
struct BundledFolder {
  const char* name;
  const char* known_file;  // tells our folder from any other
  const char* content;     // for errors
};
constexpr BundledFolder kConfigs = {"configs", "qwen3-30b-a3b.json", "config"};
constexpr BundledFolder kProfiles = {"profiles", "h100-nvlink.json", "profile"};

bool has_folder(const fs::path& root, const BundledFolder& folder, fs::path& found) {
  std::error_code error;
  found = root / folder.name;
  return fs::is_regular_file(found / folder.known_file, error);
}

fs::path find_folder(const BundledFolder& wanted) {
  std::error_code error;
  fs::path found;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int i = 0; i < kParentsMax && !folder.empty(); ++i) {
    const bool is_here =
        has_folder(folder, wanted, found) || has_folder(folder / "share/nanocp", wanted, found);
    if (is_here) return found;
    if (folder == folder.parent_path()) break;
    folder = folder.parent_path();
  }
  return has_folder(NANOCP_SOURCE_DIR, wanted, found) ? found : fs::path();
}

std::string list_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".json") names.push_back(entry->path().stem().string());
  }
  std::sort(names.begin(), names.end());
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

Result<fs::path> find_bundled(const std::string& name, const BundledFolder& wanted) {
  std::error_code error;
  const fs::path folder = find_folder(wanted);
  const bool is_name = !name.empty() && name.find('/') == std::string::npos;
  if (!folder.empty() && is_name) {
    const fs::path bundled = folder / (name + ".json");
    if (fs::is_regular_file(bundled, error)) return bundled;
  }
  const std::string names = folder.empty() ? "none found" : list_names(folder);
  return not_found(model::printable(name) + ": no such directory, " + wanted.content +
                   " file or bundled " + wanted.content + " (" + names + ")");
}

}  // namespace

Result<fs::path> find_model_config(const std::string& model) {
  std::error_code error;
  const fs::path path(model);
  if (fs::is_directory(path, error)) return path / "config.json";
  if (fs::exists(path, error)) return path;
  return find_bundled(model, kConfigs);
}

Result<fs::path> find_profile(const std::string& profile) {
  std::error_code error;
  if (fs::is_regular_file(profile, error)) return fs::path(profile);
  return find_bundled(profile, kProfiles);
}

}  // namespace nanocp::apps
