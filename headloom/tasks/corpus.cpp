#include "headloom/tasks/corpus.h"

#include <algorithm>
#include <vector>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const bool hidden = entries->path().filename().string().front() == '.';
    if (hidden) {
      entries.disable_recursion_pending();
    } else if (entries->is_regular_file()) {
      files.push_back(entries->path());
    }
  }
  HEADLOOM_CHECK(!error, folder.string(), "a readable folder", error.message());
  HEADLOOM_CHECK(!files.empty(), folder.string(), "a folder with files", "none");
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    return a.generic_string() < b.generic_string();
  });
  return files;
}

}  // namespace

std::string read_corpus(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return read_file(path);
  std::string corpus;
  for (const fs::path& file : files_below(path)) {
    const std::string bytes = read_file(file);
    corpus += bytes;
    if (!bytes.empty() && bytes.back() != '\n') corpus += '\n';
  }
  return corpus;
}

}  // namespace headloom::tasks
