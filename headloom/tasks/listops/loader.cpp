#include "headloom/tasks/listops/loader.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks::listops {
namespace {

Example read_row(std::string_view line, const std::string& where, int64_t max_length) {
  const auto tabs = std::count(line.begin(), line.end(), '\t');
  HEADLOOM_CHECK(tabs == 1, where, "an expression, one tab and its value",
                 cat(tabs, " tabs in ", excerpt(line)));
  const size_t tab = line.find('\t');
  const std::string_view label = line.substr(tab + 1);
  HEADLOOM_CHECK(label.size() == 1 && label[0] >= '0' && label[0] <= '9', where,
                 "a value 0 to 9 after the tab", excerpt(label));
  Example example = parse(line.substr(0, tab), where);
  const auto length = static_cast<int64_t>(example.tokens.size());
  HEADLOOM_CHECK(length <= max_length, where, cat("at most ", max_length, " tokens"), cat(length),
                 "Raise task.max_length.");
  HEADLOOM_CHECK(example.value == label[0] - '0', where,
                 cat("the value of the expression, ", int(example.value)), cat(label));
  return example;
}

}  // namespace

Examples load(const std::filesystem::path& path, int64_t max_length) {
  const std::string bytes = read_file(path);
  HEADLOOM_CHECK(!bytes.empty(), path.string(), "a header and rows", "an empty file");
  Examples examples;
  int64_t number = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view line(bytes.data() + begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    begin = end + 1;
    const std::string where = cat(path.string(), ':', ++number);
    if (number > 1) {
      examples.push_back(read_row(line, where, max_length));
      continue;
    }
    HEADLOOM_CHECK(line == "Source\tTarget", where, "the header Source<TAB>Target", excerpt(line));
  }
  HEADLOOM_CHECK(!examples.empty(), path.string(), "rows below the header", "none");
  return examples;
}

}  // namespace headloom::tasks::listops
