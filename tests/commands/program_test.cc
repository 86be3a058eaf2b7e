#include "program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

namespace nanocp::tests {
namespace {

constexpr auto kDeadline = std::chrono::minutes(5);
constexpr auto kPollInterval = std::chrono::milliseconds(2);

int spawn(const std::string& program, const std::vector<std::string>& arguments,
          const std::string& out, const std::string& err) {
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

ProgramResult run(const std::string& program, const std::vector<std::string>& arguments,
                  const std::function<bool(int pid, const std::string& out)>& watch) {
  const TempFolder folder;
  const std::string out = folder.path() / "out";
  const std::string err = folder.path() / "err";
  const int pid = spawn(program, arguments, out, err);
  if (pid < 0) {
    ADD_FAILURE() << "cannot start " << program;
    return {};
  }
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  bool watching = static_cast<bool>(watch);
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (watching) watching = !watch(pid, read_whole_file(out));
    if (std::chrono::steady_clock::now() > deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      ADD_FAILURE() << program << " did not end in time";
      break;
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  return {exit_code_of(status), read_whole_file(out), read_whole_file(err)};
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& arguments,
                          const std::function<bool(int pid, const std::string& out)>& watch) {
  return run(NANOCP_PROGRAM, arguments, watch);
}

ProgramResult run_other_program(const std::string& program,
                                const std::vector<std::string>& arguments) {
  return run(program, arguments, {});
}

bool has_program(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    if (access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "nanocp_test_XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string TempFolder::write(const std::string& name, const std::string& content) const {
  const std::filesystem::path file = path_ / name;
  std::ofstream(file, std::ios::binary) << content;
  return file.string();
}

std::string read_whole_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

TEST(Program, GivesExitCodeAndOutput) {
  const ProgramResult result = run_program({"--version"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.rfind("nanocp ", 0), 0U) << result.out;
  EXPECT_EQ(result.err, "");
}

}  // namespace nanocp::tests
