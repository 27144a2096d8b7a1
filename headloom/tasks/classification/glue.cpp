#include "headloom/tasks/classification/glue.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/files.h"
#include "headloom/text/lines.h"

namespace headloom::tasks::classification {
namespace {

using Columns = std::vector<std::string>;

Columns columns_of(const std::string& line) {
  Columns columns;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    columns.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

size_t column(const Columns& header, const std::string& name, const std::string& where) {
  const auto found = std::find(header.begin(), header.end(), name);
  HEADLOOM_CHECK(found != header.end(), where, cat("a header with the column \"", name, '"'),
                 excerpt(join(header, "\t")));
  return static_cast<size_t>(found - header.begin());
}

int64_t class_of(const std::string& label, const Format& format, const std::string& where) {
  const auto found = std::find(format.labels.begin(), format.labels.end(), label);
  HEADLOOM_CHECK(found != format.labels.end(), where, cat("a label among ", join(format.labels)),
                 excerpt(label));
  return found - format.labels.begin();
}

}  // namespace

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {
      {"sst2", {"sentence"}, "label", {"0", "1"}},
      {"mrpc", {"#1 String", "#2 String"}, "Quality", {"0", "1"}},
      {"rte", {"sentence1", "sentence2"}, "label", {"not_entailment", "entailment"}},
  };
  return all;
}

std::vector<Row> load(const std::filesystem::path& path, const Format& format) {
  text::LineReader lines(text::source_of(read_file(path)), path.string());
  std::string line;
  HEADLOOM_CHECK(lines.next(line), path.string(), "a header and rows", "an empty file");
  const Columns header = columns_of(line);
  const std::string first = cat(path.string(), ":1");
  const size_t label = column(header, format.label, first);
  std::vector<size_t> places;
  for (const std::string& name : format.sentences) places.push_back(column(header, name, first));

  std::vector<Row> rows;
  while (lines.next(line)) {
    const std::string where = cat(path.string(), ':', lines.number());
    const Columns columns = columns_of(line);
    HEADLOOM_CHECK(columns.size() == header.size(), where,
                   cat(header.size(), " columns, as in the header"),
                   cat(columns.size(), " in ", excerpt(line)));
    Row& row = rows.emplace_back();
    for (const size_t place : places) row.sentences.push_back(columns[place]);
    row.label = class_of(columns[label], format, where);
  }
  HEADLOOM_CHECK(!rows.empty(), path.string(), "rows below the header", "none");
  return rows;
}

}  // namespace headloom::tasks::classification
