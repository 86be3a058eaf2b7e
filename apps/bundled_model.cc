#include "apps/bundled_model.h"

#include <system_error>

namespace nanocp::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModel = "models/demo-qwen3-moe";
constexpr int kParentsMax = 4;  // build/cpu/bin/nanocp is three below the repository

bool has_model(const fs::path& root, fs::path& found) {
  std::error_code error;
  found = root / kModel;
  return fs::is_regular_file(found / "config.json", error);
}

}  // namespace

Result<fs::path> find_bundled_model() {
  std::error_code error;
  fs::path found;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  fs::path folder = program.parent_path();
  for (int i = 0; i < kParentsMax && !folder.empty(); ++i) {
    if (has_model(folder, found) || has_model(folder / "share/nanocp", found)) return found;
    if (folder == folder.parent_path()) break;
    folder = folder.parent_path();
  }
  if (has_model(NANOCP_SOURCE_DIR, found)) return found;
  return not_found(std::string("the bundled ") + kModel +
                   " is not beside the program; give a MODEL_DIR");
}

}  // namespace nanocp::apps
