#include "apps/png_file.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>
#include <vector>

#include "apps/json_output.h"

namespace nanocp::apps {
namespace {

constexpr const char* kConverter = "rsvg-convert";
constexpr auto kDeadline = std::chrono::seconds(60);
constexpr auto kPollInterval = std::chrono::milliseconds(5);

// Runs the converter with its messages on our stderr.
Status convert(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), kConverter);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& word : arguments) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, kConverter, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return unsupported(std::string("--png needs ") + kConverter +
                       ", which does not run here; it comes with the package librsvg2-bin");
  }
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return Error{ErrorCode::kInternal, std::string(kConverter) + " did not end within a minute"};
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ok_status();
  return Error{ErrorCode::kInternal, std::string(kConverter) + " failed"};
}

}  // namespace

Status check_png_converter() {
  return convert({"--version"});
}

Status write_png(const std::string& file, const std::string& svg) {
  const std::string source = file + ".svg";
  NANOCP_RETURN_IF_ERROR(write_file(source, svg));
  Status status = convert({"--zoom", "2", "--unlimited", "--output", file, source});
  std::error_code ignored;
  std::filesystem::remove(source, ignored);
  return status;
}

}  // namespace nanocp::apps
