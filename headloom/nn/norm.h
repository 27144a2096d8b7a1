#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <string>

// C model width.
namespace headloom::nn {

// A norm over the channels of each token. Parameters weight [C], ones at first, and of "layer"
// bias [C], zeros.
//   "layer": (x - mean(x)) / sqrt(variance(x) + eps) weight + bias   (Ba et al., 2016)
//   "rms":   x / sqrt(mean(x^2) + eps) weight    (Zhang and Sennrich, 2019; T5: Raffel et al.,
//   2020)
// In half precision the statistics of both are float32.
class NormImpl : public torch::nn::Module {
 public:
  NormImpl(const std::string& type, int64_t dim, double eps);
  at::Tensor forward(const at::Tensor& x);  // [..., C] -> [..., C]

 private:
  double eps_;
  at::Tensor weight_, bias_;  // no bias: root mean square
};
TORCH_MODULE(Norm);

}  // namespace headloom::nn
