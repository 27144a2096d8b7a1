#pragma once

#include "headloom/report/report.h"

namespace headloom::report {

// Columns of a table, counting cells beyond the named ones.
size_t column_count(const Table& table);

// Whether a named column holds numbers: at least half of its cells that are not empty start as one.
bool is_numeric_column(const Table& table, size_t column);

}  // namespace headloom::report
