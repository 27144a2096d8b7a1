#pragma once

#include "headloom/tasks/task.h"

namespace headloom::tasks {

// Puts a model into training or evaluation mode, and back at the end of its life.
class ModelMode {
 public:
  ModelMode(Model& model, bool training) : model_(model), was_training_(model.is_training()) {
    model_.train(training);
  }
  ~ModelMode() { model_.train(was_training_); }
  ModelMode(const ModelMode&) = delete;
  ModelMode& operator=(const ModelMode&) = delete;

 private:
  Model& model_;
  bool was_training_;
};

}  // namespace headloom::tasks
