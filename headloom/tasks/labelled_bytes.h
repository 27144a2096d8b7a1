#pragma once

#include <filesystem>

#include "headloom/tasks/examples.h"

namespace headloom::tasks {

// Texts and a class in a tab-separated file without header: the class first, as 0, 1, 0.0 or 1.0,
// the texts last, whatever else between. Rows end with "\n" (a "\r" before it is left out); nothing
// is quoted, and bytes stay as they are.
struct LabelledForm {
  size_t columns = 0;   // of every row; 0: as many as the first row has
  bool pairs = false;   // the last two columns are texts
  int64_t longest = 0;  // bytes of a text that are kept, from its start
};

// Refuses, with file and line, rows with another number of columns, classes other than those, and
// empty texts; also a file without rows.
Examples read_labelled_bytes(const std::filesystem::path& path, const LabelledForm& form);

}  // namespace headloom::tasks
