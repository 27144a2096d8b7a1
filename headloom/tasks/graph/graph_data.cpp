#include "headloom/tasks/graph/graph_data.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <string_view>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks::graph {
namespace {

// One line of a file, for messages.
struct Line {
  const std::filesystem::path& path;
  int64_t number;
  std::string_view text;

  std::string where() const { return cat(path.string(), ':', number); }
  [[noreturn]] void refuse(const std::string& expected) const {
    fail(where(), expected, excerpt(text));
  }
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

int64_t number(const Line& line, std::string_view text, const char* what) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    line.refuse(cat("a whole number as ", what));
  }
  return value;
}

// body(line, fields) for each line after the header, which has as many fields.
void for_each_line(
    const std::filesystem::path& path, size_t fields,
    const std::function<void(const Line&, const std::vector<std::string_view>&)>& body) {
  const std::string text = read_file(path);
  int64_t count = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const Line line{path, ++count, rest.substr(0, end)};
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto parts = split(line.text, '\t');
    if (parts.size() != fields) line.refuse(cat(fields, " fields between tabs"));
    if (count > 1) body(line, parts);
  }
  HEADLOOM_CHECK(count > 1, path.string(), "a header and at least one line", cat(count, " lines"));
}

Split split_named(const Line& line, std::string_view name) {
  if (name == "train") return Split::kTrain;
  if (name == "val") return Split::kValidation;
  if (name == "test") return Split::kTest;
  if (name != "none") line.refuse("a split among train, val, test, none");
  return Split::kNone;
}

}  // namespace

SparseRows::SparseRows(const std::vector<std::vector<int64_t>>& lists, int64_t columns_in_all)
    : begin{0}, column_begin(static_cast<size_t>(columns_in_all) + 1) {
  for (size_t row = 0; row < lists.size(); ++row) {
    for (const int64_t column : lists[row]) {
      columns.push_back(column);
      rows.push_back(static_cast<int64_t>(row));
      ++column_begin[static_cast<size_t>(column) + 1];
    }
    begin.push_back(size());
  }
  for (size_t c = 1; c < column_begin.size(); ++c) column_begin[c] += column_begin[c - 1];
  std::vector<int64_t> next(column_begin.begin(), column_begin.end() - 1);
  entries.resize(columns.size());
  for (int64_t e = 0; e < size(); ++e) {
    entries[static_cast<size_t>(next[static_cast<size_t>(columns[static_cast<size_t>(e)])]++)] = e;
  }
}

std::vector<int64_t> Graph::nodes_of(Split split) const {
  std::vector<int64_t> found;
  for (int64_t i = 0; i < nodes(); ++i) {
    if (splits[static_cast<size_t>(i)] == split) found.push_back(i);
  }
  return found;
}

Graph read_graph(const std::filesystem::path& folder) {
  Graph graph;
  std::vector<std::vector<int64_t>> features;
  int64_t columns = 0;
  for_each_line(folder / "nodes.tsv", 4, [&](const Line& line, const auto& fields) {
    if (number(line, fields[0], "the node") != graph.nodes()) {
      line.refuse(cat("node ", graph.nodes(), ", nodes being numbered from 0"));
    }
    const int64_t label = number(line, fields[1], "the label");
    if (label < -1) line.refuse("a label of at least 0, or -1 for none");
    graph.splits.push_back(split_named(line, fields[2]));
    if (label < 0 && graph.splits.back() != Split::kNone) line.refuse("a label for a split's node");
    graph.labels.push_back(label);
    graph.classes = std::max(graph.classes, label + 1);
    features.emplace_back();
    if (fields[3].empty()) return;
    for (const std::string_view column : split(fields[3], ' ')) {
      features.back().push_back(number(line, column, "a feature column"));
      if (features.back().back() < 0) line.refuse("feature columns of at least 0");
      columns = std::max(columns, features.back().back() + 1);
    }
  });
  std::vector<std::set<int64_t>> near(static_cast<size_t>(graph.nodes()));
  for (int64_t i = 0; i < graph.nodes(); ++i) near[static_cast<size_t>(i)].insert(i);
  for_each_line(folder / "edges.tsv", 2, [&](const Line& line, const auto& fields) {
    const int64_t u = number(line, fields[0], "a node"), v = number(line, fields[1], "a node");
    if (std::min(u, v) < 0 || std::max(u, v) >= graph.nodes()) {
      line.refuse(cat("nodes from 0 to ", graph.nodes() - 1));
    }
    near[static_cast<size_t>(u)].insert(v);
    near[static_cast<size_t>(v)].insert(u);
  });
  std::vector<std::vector<int64_t>> lists;
  for (const auto& set : near) lists.emplace_back(set.begin(), set.end());
  graph.neighbours = SparseRows(lists, graph.nodes());
  graph.features = SparseRows(features, columns);
  return graph;
}

}  // namespace headloom::tasks::graph
