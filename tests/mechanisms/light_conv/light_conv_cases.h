#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"

// What the tests of both convolutions share.
namespace headloom::conv_testing {

using at::Tensor;

// sin(a i + b) over the row-major index i, float64.
inline Tensor wave(double a, double b, at::IntArrayRef sizes) {
  int64_t count = 1;
  for (int64_t size : sizes) count *= size;
  return at::sin(at::arange(count, at::kDouble) * a + b).view(sizes);
}

// Standard normal numbers, float64, the same for the same seed and sizes.
inline Tensor normal(at::IntArrayRef sizes, int64_t seed) {
  at::manual_seed(seed);
  return at::randn(sizes, at::kDouble);
}

inline Tensor mask(std::vector<std::string> rows) {  // 'x' is padding
  const auto time = static_cast<int64_t>(rows.at(0).size());
  const Tensor result = at::zeros({static_cast<int64_t>(rows.size()), time}, at::kBool);
  for (size_t b = 0; b < rows.size(); ++b) {
    for (int64_t t = 0; t < time; ++t) result[b][t].fill_(rows[b][t] == 'x');
  }
  return result;
}

inline ConvCall light(int64_t padding) {
  return {LightConvOp::kName, padding};
}
inline ConvCall dynamic(int64_t padding) {
  ConvCall call{DynamicConvOp::kName, padding};
  call.per_position = true;
  return call;
}

using Path = Tensor (*)(const Tensor&, const Tensor&, const ConvCall&);

// Through torch's dispatcher; `call.op` says which operator.
inline Tensor run(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  return std::string(call.op) == LightConvOp::kName ? call_conv<LightConvOp>(x, weight, call)
                                                    : call_conv<DynamicConvOp>(x, weight, call);
}

// Of <grad, function(inputs)>.
inline std::vector<Tensor> gradients(
    const std::function<Tensor(const std::vector<Tensor>&)>& function,
    const std::vector<Tensor>& inputs, const Tensor& grad) {
  const at::AutoGradMode on(true);
  std::vector<Tensor> leaves;
  for (const Tensor& input : inputs) leaves.push_back(input.detach().requires_grad_(true));
  return torch::autograd::grad({function(leaves)}, leaves, {grad});
}

// Of one call, by x and the weight.
inline std::vector<Tensor> gradients(Path path, const Tensor& x, const Tensor& weight,
                                     const ConvCall& call, const Tensor& grad) {
  return gradients([&](const std::vector<Tensor>& in) { return path(in[0], in[1], call); },
                   {x, weight}, grad);
}

// Largest error over the largest magnitude, or over `scale` when that is larger.
inline ::testing::AssertionResult close(const Tensor& found, const Tensor& expected,
                                        double relative = 1e-12, double scale = 0.0) {
  if (found.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure()
           << "shape " << found.sizes() << ", expected " << expected.sizes();
  }
  if (found.numel() == 0) return ::testing::AssertionSuccess();
  const Tensor error = (found.to(at::kDouble) - expected.to(at::kDouble)).abs();
  const double bound =
      relative * std::max(scale, expected.to(at::kDouble).abs().max().item<double>());
  const double worst = error.max().item<double>();
  if (worst <= bound) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "error " << worst << " > " << bound << " at flat index "
                                       << error.argmax().item<int64_t>();
}

inline Tensor row(std::vector<double> values) {
  return at::tensor(values, at::kDouble);
}

// Golden values are printed with nine decimals: half a unit of the last one, and a little more.
inline ::testing::AssertionResult golden(const Tensor& found, std::vector<double> expected) {
  const Tensor error = (found.reshape({-1}) - row(expected)).abs();
  if (error.max().item<double>() <= 6e-10) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << found << " differs from the golden values by " << error;
}

}  // namespace headloom::conv_testing
