#pragma once

#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "headloom/train/recipe.h"
#include "headloom/train/safetensors.h"

namespace headloom::train {

// Adam (Kingma and Ba, 2015) and AdamW (Loshchilov and Hutter, 2019) over torch's fused operator,
// which updates all parameters in one call. Weight decay applies to parameters of two or more
// dimensions. A parameter under two names (tied weights) is one parameter, under the first; those
// that require no gradient at construction are left out.
class Optimizer {
 public:
  Optimizer(const OptimizerConfig& config, const torch::nn::Module& model);

  void zero_grad();
  // One update with the given learning rate; parameters without a gradient are left alone.
  void step(double lr);
  // Multiplies all gradients by `factor`, then scales them down to the global norm `clip` if it is
  // above 0. Returns the norm before clipping; not finite when any gradient is not.
  double scale_and_clip(double factor, double clip);

  // "<parameter>.step", "<parameter>.first_moment" and "<parameter>.second_moment", sharing memory
  // with the optimizer: save or clone them before the next step. load() copies, and refuses other
  // names, shapes and dtypes before it changes anything.
  NamedTensors state() const;
  void load(const NamedTensors& state);

 private:
  // Parameters that one call of the fused operator may update.
  struct Group {
    bool decays;
    at::Device device;
    at::ScalarType dtype;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first_moments, second_moments, steps;
  };
  void add(const std::string& name, const at::Tensor& parameter);
  Group& group_of(const at::Tensor& parameter);

  OptimizerConfig config_;
  std::vector<Group> groups_;
};

}  // namespace headloom::train
