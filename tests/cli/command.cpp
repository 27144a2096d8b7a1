#include "tests/cli/command.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "headloom/cli/machine.h"

namespace headloom::cli {

Outcome run_command(const std::vector<std::string>& arguments, const std::string& folder,
                    const std::string& input, const std::string& prelude) {
  const TemporaryFolder streams;
  write_text(streams / "in", input);
  std::vector<std::string> words{HEADLOOM_BINARY_DIR "/headloom"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::string script = "COMMAND=" + shell_line({shell_line(words)}) + "\n" + prelude + "\n";
  write_text(streams / "script", script);
  const std::string shell = "cd " + shell_line({folder}) + " && sh " +
                            shell_line({streams / "script"}) + " <" + shell_line({streams / "in"}) +
                            " >" + shell_line({streams / "out"}) + " 2>" +
                            shell_line({streams / "err"});
  const int status = std::system(shell.c_str());
  const int exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return {exit_code, read_text(streams / "out"), read_text(streams / "err")};
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "headloom_XXXXXX").string();
  path_ = ::mkdtemp(name.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace headloom::cli
