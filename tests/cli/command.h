#pragma once

#include <string>
#include <vector>

namespace headloom::cli {

struct Outcome {
  int exit_code = -1;  // 128 + signal when a signal ended it
  std::string out, err;
};

// Runs the built command with `arguments` in `folder`, `input` on its standard input. `prelude` is
// shell text around it in which $COMMAND stands for the quoted command line; by default just that.
Outcome run_command(const std::vector<std::string>& arguments, const std::string& folder = ".",
                    const std::string& input = "",
                    const std::string& prelude = "eval \"$COMMAND\"");

// A folder that goes away with its test.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read_text(const std::string& path);
void write_text(const std::string& path, const std::string& text);

}  // namespace headloom::cli
