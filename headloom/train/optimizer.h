#pragma once

#include <torch/nn/module.h>

#include "headloom/train/recipe.h"
#include "headloom/train/safetensors.h"

namespace headloom::train {

// Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019) over torch's fused operator,
// which updates all parameters in one call. Weight decay applies to parameters of two or more
// dimensions.
class Optimizer {
 public:
  Optimizer(const OptimizerConfig& config, const torch::nn::Module& model);

  void zero_grad();
  // One update with the given learning rate; parameters without a gradient are left alone.
  void step(double lr);
  // Multiplies all gradients by `factor`, then scales them down to the global norm `clip` if it is
  // above 0. Returns the norm before clipping; not finite when any gradient is not.
  double scale_and_clip(double factor, double clip);

  // Moments and step counts, named after the parameters; load() refuses other names and shapes.
  NamedTensors state() const;
  void load(const NamedTensors& state);

 private:
  struct Group {
    double weight_decay;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first_moments, second_moments, steps;
  };
  OptimizerConfig config_;
  std::vector<Group> groups_;
};

}  // namespace headloom::train
