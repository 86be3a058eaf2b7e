#include "apps/flag_file.h"

namespace nanocp::apps {
namespace {

Status apply(CLI::App& command, const CLI::ConfigItem& item, const std::string& file) {
  const std::string where = file + ": \"" + item.fullname() + "\"";
  CLI::Option* option =
      item.parents.empty() ? command.get_option_no_throw("--" + item.name) : nullptr;
  if (option == nullptr || item.name == "help" || item.name == "config") {
    return invalid_argument(where + " is not a flag of this command (see --help)");
  }
  if (option->count() > 0) return ok_status();
  try {
    option->add_result(item.inputs);
    option->run_callback();
  } catch (const CLI::Error& error) {
    return invalid_argument(where + ": " + error.what());
  }
  return ok_status();
}

}  // namespace

Status apply_flag_file(CLI::App& command, const std::string& file) {
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(file);
  } catch (const CLI::Error& error) {
    return invalid_argument(file + ": " + error.what());
  }
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // begin and end of a section
    NANOCP_RETURN_IF_ERROR(apply(command, item, file));
  }
  return ok_status();
}

}  // namespace nanocp::apps
