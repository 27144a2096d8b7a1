#pragma once

#include <memory>
#include <optional>

#include "headloom/train/checkpoint.h"
#include "headloom/train/ema.h"
#include "headloom/train/step.h"

namespace headloom::train {

// Whether nothing is left to train: all steps done, or patience at its end.
bool is_finished(const TrainConfig& config, const Counters& counters);

// A run in a folder that this process holds.
class Loop {
 public:
  // Goes on from the checkpoint when there is one.
  Loop(const Recipe& recipe, const tasks::Task& task, const RunOptions& options,
       const std::optional<Checkpoint>& checkpoint);

  // Text that the user should see before the first step.
  void warn(const std::string& text) { telemetry_.warning(counters_.step, text); }
  RunSummary run();

 private:
  void restore(const Checkpoint& checkpoint);
  void advance();  // until finished or a signal
  void update();
  void validate();
  bool validation_due() const;
  bool checkpoint_due() const;
  Checkpoint checkpoint() const;
  // Whether the checkpoint is on disk; a failure is a warning.
  bool save();
  void save_best();
  // Takes the closing metrics of a finished model, unless a signal comes.
  void close();
  RunSummary finish();
  RunSummary summary() const;

  const Recipe& recipe_;
  const tasks::Task& task_;
  RunOptions options_;
  at::Device device_;
  Counters counters_;
  std::string recipe_text_;
  std::shared_ptr<tasks::Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  Stepper stepper_;
  std::unique_ptr<WeightAverage> average_;  // null without train.ema
  CheckpointFolder checkpoints_;
  Telemetry telemetry_;
  bool resumed_;
  bool dirty_ = false;       // something is not in a checkpoint
  int64_t tried_step_ = -1;  // of the last attempt to save
  std::string save_error_;
  std::optional<tasks::Metrics> closing_metrics_;
};

}  // namespace headloom::train
