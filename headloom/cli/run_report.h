#pragma once

#include <string>

#include "headloom/report/report.h"
#include "headloom/train/run.h"

namespace headloom::cli {

// The outcome of a run: each metric at the end, and where the main one was best.
report::Table summary_table(const train::RunSummary& summary);

// Writes <folder>/report.html with the course of the run and returns its path.
std::string write_run_report(const std::string& folder, const train::Recipe& recipe,
                             const train::RunSummary& summary);

// 12345678 -> "12,345,678"
std::string with_commas(int64_t value);

}  // namespace headloom::cli
