// Runs the program under test without a shell. Every run has a deadline.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace nanocp::tests {

struct ProgramResult {
  int exit_code = -1;  // 128 + signal if one ended it
  std::string out;
  std::string err;
};

// Runs `nanocp ARGUMENTS...`. While it runs, `watch` gets its process id and what it has printed so
// far, until it returns true.
ProgramResult run_program(const std::vector<std::string>& arguments,
                          const std::function<bool(int pid, const std::string& out)>& watch = {});

// The same for another program, which is looked for in PATH.
ProgramResult run_other_program(const std::string& program,
                                const std::vector<std::string>& arguments);

// Whether PATH has such a program.
bool has_program(const std::string& program);

// A folder of this test's own, removed at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Writes a file and returns its path.
  std::string write(const std::string& name, const std::string& content) const;

 private:
  std::filesystem::path path_;
};

std::string read_whole_file(const std::filesystem::path& path);

}  // namespace nanocp::tests
