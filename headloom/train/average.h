#pragma once

#include <string>
#include <vector>

#include "headloom/train/safetensors.h"

namespace headloom::train {

// The mean of the weights of several checkpoints, summed in float64. What is not a floating-point
// number (counts, flags) is that of the last. Refuses checkpoints that differ in names, shapes or
// dtypes; `names` are theirs, for messages.
NamedTensors average_weights(const std::vector<NamedTensors>& weights,
                             const std::vector<std::string>& names);

struct AverageOptions {
  std::vector<std::string> checkpoints;  // folders or safetensors files; empty: the newest `last`
  int64_t last = 5;
  std::string output;  // empty: <folder>/average.safetensors
};

struct Averaged {
  std::string output;
  std::vector<std::string> checkpoints;  // in the order of training where they have one
  int64_t parameters = 0;
};

// Averages checkpoints of a run into a file of weights that load_run() takes. A checkpoint may be
// named as it stands in <folder>/checkpoints ("step_00001000", "best"). The weights are those of
// training, not the moving average (train.ema), which is a mean already. Refuses fewer checkpoints
// than asked for.
Averaged average_run(const std::string& folder, const AverageOptions& options);

}  // namespace headloom::train
