#pragma once

#include <chrono>

#include "headloom/train/counters.h"
#include "headloom/train/display.h"
#include "headloom/train/metrics_file.h"
#include "headloom/train/run.h"

namespace headloom::train {

// One optimizer update.
struct StepResult {
  double loss = 0.0;    // mean
  double weight = 0.0;  // that the mean was taken over
  double lr = 0.0;
  double grad_norm = 0.0;  // before clipping
  int64_t tokens = 0;
  double seconds = 0.0;
};

// Tells a run's story twice: to metrics.jsonl and to the person at the terminal.
class Telemetry {
 public:
  Telemetry(const Recipe& recipe, const RunOptions& options, int64_t resumed_step);

  void start(const std::string& mixer, int64_t parameters, double flops_per_sequence);
  void resume(int64_t step);
  // Adds an update to the interval, and closes the interval when a line is due.
  void step(Counters& counters, const StepResult& result);
  void validation(const Counters& counters, double seconds, bool is_best);
  void warning(int64_t step, const std::string& text);
  void error(int64_t step, const std::string& text);
  void end(const RunSummary& summary, const std::string& reason);
  void sync() { file_.sync(); }

 private:
  void write(const std::string& line);

  int64_t steps_, log_every_;
  MetricsFile file_;
  Display display_;
  bool file_failed_ = false;
  std::string last_validation_;
  int64_t first_step_;  // of this process
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace headloom::train
