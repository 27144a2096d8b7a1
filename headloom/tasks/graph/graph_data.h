#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace headloom::tasks::graph {

// Rows of column numbers, with the same entries by column: entry e is columns[e] of the row r with
// begin[r] <= e < begin[r + 1]; in by_column order it is entries[.] of its column.
struct SparseRows {
  std::vector<int64_t> begin, columns;
  std::vector<int64_t> rows;  // of each entry
  std::vector<int64_t> column_begin, entries;

  SparseRows() = default;
  SparseRows(const std::vector<std::vector<int64_t>>& lists, int64_t columns);
  int64_t row_count() const { return static_cast<int64_t>(begin.size()) - 1; }
  int64_t column_count() const { return static_cast<int64_t>(column_begin.size()) - 1; }
  int64_t size() const { return static_cast<int64_t>(columns.size()); }
};

enum class Split { kTrain, kValidation, kTest, kNone };

// A graph for the classification of its nodes.
struct Graph {
  SparseRows neighbours;        // of each node, itself among them, ascending
  SparseRows features;          // columns whose feature is 1
  std::vector<int64_t> labels;  // -1: none
  std::vector<Split> splits;
  int64_t classes = 0;

  int64_t nodes() const { return static_cast<int64_t>(labels.size()); }
  std::vector<int64_t> nodes_of(Split split) const;
};

// Reads the plain-text form of a Planetoid data set (Yang et al., 2016) from a folder:
//   nodes.tsv   header; node 0, 1, ...; label; train, val, test or none; columns that are 1
//   edges.tsv   header; node; node
// Edges count in both directions and once; self-loops are added. Refuses anything else, with file
// and line.
Graph read_graph(const std::filesystem::path& folder);

}  // namespace headloom::tasks::graph
