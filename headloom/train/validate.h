#pragma once

#include <optional>

#include "headloom/train/run.h"

namespace headloom::train {

// validate(), given up with nothing when `stop` says so between two batches.
std::optional<tasks::Metrics> validate_unless(const std::function<bool()>& stop,
                                              tasks::Model& model, const tasks::Task& task,
                                              const Recipe& recipe);

// The task's closing metrics, given up with nothing when `stop` says so.
std::optional<tasks::Metrics> closing_unless(const std::function<bool()>& stop, tasks::Model& model,
                                             const tasks::Task& task);

}  // namespace headloom::train
