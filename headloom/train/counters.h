#pragma once

#include <map>
#include <string>

#include "headloom/tasks/task.h"

namespace headloom::train {

// The numbers that a run goes on from, beside its tensors.
struct Counters {
  int64_t step = 0;            // optimizer updates done
  int64_t tokens = 0;          // trained on
  double train_seconds = 0.0;  // spent in updates

  int64_t validated_step = 0;  // of the last validation; 0 before the first
  tasks::Metrics last_metrics, best_metrics;
  int64_t best_step = 0;   // 0 before the first
  int64_t best_stale = 0;  // validations since the best

  // Since the last "train" line.
  double loss_sum = 0.0, loss_weight = 0.0, interval_seconds = 0.0;
  int64_t interval_tokens = 0;
};

// As Checkpoint::values carries them; reads back exactly. Reading refuses what is not such a text.
std::map<std::string, std::string> to_values(const Counters& counters);
Counters read_counters(const std::map<std::string, std::string>& values);

// The value of the task's main metric among `metrics`; Error when it is not there.
double main_value(const tasks::Task& task, const tasks::Metrics& metrics);

}  // namespace headloom::train
