#pragma once

#include "headloom/train/recipe.h"

namespace headloom::train {

// The learning rate of step 1, 2, ...: `lr` times
//   warm-up       step / warmup                              while step < warmup
//   constant      1
//   linear        1 - (1 - min_ratio) f
//   cosine        min_ratio + (1 - min_ratio) (1 + cos(pi f)) / 2
//   inverse_sqrt  sqrt(max(warmup, 1) / step)
// with f = (step - warmup) / (steps - warmup), held at 1 beyond the end.
double learning_rate(const ScheduleConfig& schedule, double lr, int64_t run_steps, int64_t step);

}  // namespace headloom::train
