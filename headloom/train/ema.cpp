#include "headloom/train/ema.h"

#include <algorithm>

namespace headloom::train {

WeightAverage::WeightAverage(double decay, const torch::nn::Module& model)
    : decay_(decay), parameters_(unique_parameters(model)) {
  for (const auto& [name, tensor] : parameters_) {
    averages_.emplace_back(name, tensor.detach().clone());
  }
}

void WeightAverage::update(int64_t step) {
  at::NoGradGuard no_grad;
  const auto t = static_cast<double>(step);
  const double decay = std::min(decay_, (1.0 + t) / (10.0 + t));
  for (size_t i = 0; i < averages_.size(); ++i) {
    averages_[i].second.lerp_(parameters_[i].second.detach(), 1.0 - decay);
  }
}

void WeightAverage::swap() {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < averages_.size(); ++i) {
    const at::Tensor kept = parameters_[i].second.detach().clone();
    parameters_[i].second.copy_(averages_[i].second);
    averages_[i].second.copy_(kept);
  }
}

NamedTensors WeightAverage::state() const {
  NamedTensors state;
  for (const auto& [name, tensor] : averages_) {
    state.emplace_back(name, tensor.to(at::kCPU).contiguous());
  }
  return state;
}

void WeightAverage::load(const NamedTensors& state) {
  copy_strictly("averaged weights", state, averages_);
}

}  // namespace headloom::train
