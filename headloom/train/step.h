#pragma once

#include "headloom/tasks/task.h"
#include "headloom/train/alignment.h"
#include "headloom/train/optimizer.h"
#include "headloom/train/telemetry.h"

namespace headloom::train {

// The device that a recipe names; Error when torch does not see one.
at::Device device_of(const Recipe& recipe);

// Logits in the given precision; what autocast left in half precision comes back as float32.
at::Tensor compute_logits(tasks::Model& model, const tasks::Batch& batch,
                          const std::string& precision);

// One optimizer update. `step` counts from 1 and is made of the batches (step - 1) accumulate to
// step accumulate - 1; the gradient is that of their summed losses over their summed weights, as if
// they were one batch. Error, with the parameters untouched, when a loss or the gradient is not
// finite.
class Stepper {
 public:
  Stepper(const Recipe& recipe, const tasks::Task& task, tasks::Model& model, Optimizer& optimizer);
  StepResult operator()(int64_t step);

 private:
  void accumulate(int64_t step, int64_t index, StepResult& total);
  std::string name(int64_t step) const;

  const Recipe& recipe_;
  const tasks::Task& task_;
  tasks::Model& model_;
  Optimizer& optimizer_;
  at::Device device_;
  Alignment alignment_;
};

}  // namespace headloom::train
