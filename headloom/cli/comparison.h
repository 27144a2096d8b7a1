#pragma once

#include <optional>
#include <string>
#include <vector>

#include "headloom/cli/machine.h"
#include "headloom/cli/run_log.h"
#include "headloom/report/report.h"
#include "headloom/report/statistics.h"
#include "headloom/train/run.h"

// What `headloom compare` says about its runs.
namespace headloom::cli {

struct ComparedRun {
  std::string mechanism;
  int64_t seed = 0;
  // Both or none.
  std::optional<train::RunSummary> summary;
  RunLog log;
  std::string failure;  // why there is no summary
};

struct Comparison {
  std::string title;
  std::vector<std::string> mechanisms;  // the first is what the others are compared with
  std::vector<int64_t> seeds;
  std::vector<ComparedRun> runs;  // one for each mechanism and seed, in any order
  Machine machine;
  std::string command;  // that makes it again
  std::string recipe;   // TOML
};

// One mechanism over its finished runs.
struct MechanismResult {
  std::string mechanism;
  std::vector<int64_t> seeds;  // with a finished run
  report::Estimate metric;     // the main one, at the end of training
  // To the first mechanism, over the seeds that both have finished.
  report::Estimate difference;
  // Whether the interval of the difference leaves out zero: "better" or "worse"; "undecided" when
  // it does not, or when there are not two seeds; "baseline" for the first mechanism.
  std::string verdict;
  tasks::Metrics other_metrics;  // means
  int64_t parameters = 0;
  double flops_per_sequence = 0.0;
  double tokens_per_second = 0.0;  // median
  double peak_memory_bytes = 0.0;  // median
};
std::vector<MechanismResult> results_of(const Comparison& comparison);

// Error when no run has finished.
report::Table result_table(const Comparison& comparison);
report::Page comparison_page(const Comparison& comparison);
std::string comparison_json(const Comparison& comparison);

// "0.412 +- 0.013", digits after the two leading ones of the half width left out; with one sample
// "0.4120 (1 seed)". `sign` shows a plus.
std::string format_estimate(const report::Estimate& estimate, bool sign = false);

}  // namespace headloom::cli
