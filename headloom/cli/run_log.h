#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "headloom/report/report.h"
#include "headloom/tasks/task.h"

namespace headloom::cli {

// What metrics.jsonl of a run says about its course. Values that were not finite are NaN. Seconds
// are of training alone: validation and saving left out.
struct TrainPoint {
  int64_t step;
  double seconds, loss, lr, tokens_per_second;
};
struct ValidationPoint {
  int64_t step;
  double seconds;
  tasks::Metrics metrics;
};
struct RunLog {
  std::vector<TrainPoint> train;
  std::vector<ValidationPoint> validation;
};

// Reads the file of a run; a last line that is cut short, as a crash leaves it, is left out. Error
// names the line of any other that is not an object.
RunLog read_run_log(const std::string& path);

// NaN when there is no metric of the name.
double metric_of(const tasks::Metrics& metrics, const std::string& name);

// One value of a run at a step.
struct CurvePoint {
  int64_t step;
  double seconds, value;
};
using Curve = std::vector<CurvePoint>;
Curve training_loss(const RunLog& log);
Curve validation_metric(const RunLog& log, const std::string& name);

enum class Across { kSteps, kSeconds };
// The mean over runs at each step that all of them have, with a band from the lowest to the highest
// when they are more than one; on an axis of seconds each step is at the mean time of the runs.
report::Series mean_series(const std::string& name, const std::vector<Curve>& runs, Across across);

}  // namespace headloom::cli
