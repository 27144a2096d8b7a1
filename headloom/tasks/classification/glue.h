#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "headloom/tasks/task.h"

namespace headloom::tasks::classification {

// A file shape of GLUE (Wang et al., 2019): where the sentences and the label of a row are.
struct Format {
  std::string name;                    // as recipes write it
  std::vector<std::string> sentences;  // columns by the names in the header, one or two
  std::string label;                   // the same
  std::vector<std::string> labels;     // by class; class 1 is the positive one
};

// sst2, mrpc and rte.
const std::vector<Format>& formats();

using Row = ClassifiedTexts;

// Reads a file: a header, then a row a line, columns with tabs between, nothing quoted: a quotation
// mark is an ordinary character. Lines and bytes by the rules of text/lines.h. Refuses, with file
// and line, a header without the columns of the format, rows with another number of columns than
// the header, and unknown labels; also a file without rows.
std::vector<Row> load(const std::filesystem::path& path, const Format& format);

}  // namespace headloom::tasks::classification
