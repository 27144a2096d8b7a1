#pragma once

#include <filesystem>

#include "headloom/tasks/listops/expression.h"

namespace headloom::tasks::listops {

// Reads a file of the published form: UTF-8, a header "Source<TAB>Target", then one row a line,
// the expression, a tab and its value. Parentheses around pairs may be there or left out. Refuses,
// with file and line, every row that is not of that form, whose expression is longer than
// max_length tokens, or whose value is not what its expression evaluates to; also an empty file and
// one without rows.
Examples load(const std::filesystem::path& path, int64_t max_length);

}  // namespace headloom::tasks::listops
