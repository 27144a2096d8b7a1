#pragma once

#include <optional>
#include <string>

#include "headloom/cli/run_log.h"
#include "headloom/report/report.h"
#include "headloom/train/run.h"

namespace headloom::cli {

// The outcome of a run: each metric at the end, and where the main one was best.
report::Table summary_table(const train::RunSummary& summary);

// The course of the run in a folder, and the matrices that mix heads, of its newest checkpoint; the
// page says so when no checkpoint can be read. Without a summary the run is not at its end: the
// page shows what is there.
report::Page run_page(const std::string& folder, const train::Recipe& recipe, const RunLog& log,
                      const std::optional<train::RunSummary>& summary);

// Writes it to <folder>/report.html and returns that path.
std::string write_run_report(const std::string& folder, const train::Recipe& recipe,
                             const train::RunSummary& summary);

// 12345678 -> "12,345,678"
std::string with_commas(int64_t value);

}  // namespace headloom::cli
