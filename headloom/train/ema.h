#pragma once

#include "headloom/train/weights.h"

namespace headloom::train {

// An exponential moving average of a model's parameters. After step t, counted from 1,
//   average = d average + (1 - d) parameter,   d = min(decay, (1 + t) / (10 + t)),
// from the first parameters on; the second term lets the average leave them quickly.
class WeightAverage {
 public:
  WeightAverage(double decay, const torch::nn::Module& model);

  void update(int64_t step);
  // Exchanges averages and parameters; a second call puts them back.
  void swap();

  NamedTensors state() const;  // by parameter name, on the CPU
  void load(const NamedTensors& state);

 private:
  double decay_;
  NamedTensors parameters_, averages_;
};

// The averages are the model's parameters while it lives. `average` may be null.
class SwapGuard {
 public:
  explicit SwapGuard(WeightAverage* average) : average_(average) {
    if (average_) average_->swap();
  }
  ~SwapGuard() {
    if (average_) average_->swap();
  }
  SwapGuard(const SwapGuard&) = delete;
  SwapGuard& operator=(const SwapGuard&) = delete;

 private:
  WeightAverage* average_;
};

}  // namespace headloom::train
