#include "headloom/tasks/labelled_bytes.h"

#include <algorithm>
#include <string_view>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks {
namespace {

using Columns = std::vector<std::string_view>;

Columns columns_of(std::string_view line) {
  Columns columns;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    columns.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

uint8_t class_of(std::string_view label, const std::string& where) {
  const bool positive = label == "1" || label == "1.0";
  HEADLOOM_CHECK(positive || label == "0" || label == "0.0", where,
                 "a class 0 or 1 in the first column", excerpt(label));
  return positive ? 1 : 0;
}

std::vector<uint8_t> bytes_of(std::string_view text, int64_t longest, const std::string& where) {
  HEADLOOM_CHECK(!text.empty(), where, "a text", "an empty column");
  const std::string_view kept = text.substr(0, static_cast<size_t>(longest));
  return {kept.begin(), kept.end()};
}

}  // namespace

Examples read_labelled_bytes(const std::filesystem::path& path, const LabelledForm& form) {
  const std::string bytes = read_file(path);
  size_t expected = form.columns;
  Examples examples;
  for (size_t begin = 0, number = 1; begin < bytes.size(); ++number) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view line(bytes.data() + begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    begin = end + 1;
    const std::string where = cat(path.string(), ':', number);
    const Columns columns = columns_of(line);
    if (expected == 0) expected = std::max<size_t>(columns.size(), 2);
    HEADLOOM_CHECK(columns.size() == expected, where,
                   cat(expected, " columns with tabs between, the class first"),
                   cat(columns.size(), " in ", excerpt(line)));
    Example& example = examples.emplace_back();
    example.value = class_of(columns[0], where);
    example.tokens = bytes_of(columns[expected - (form.pairs ? 2 : 1)], form.longest, where);
    if (form.pairs) example.second = bytes_of(columns.back(), form.longest, where);
  }
  HEADLOOM_CHECK(!examples.empty(), path.string(), "rows", "an empty file");
  return examples;
}

}  // namespace headloom::tasks
