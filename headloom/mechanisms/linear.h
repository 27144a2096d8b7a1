#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/modules/linear.h>

namespace headloom {

// at::linear: x [..., I], weight [O, I], bias [O] or undefined -> [..., O], differentiable as often
// as one likes.
//
// float32 on the processor goes to oneDNN, which torch carries and asks for bfloat16 only. Torch's
// own float32 products are MKL's, and MKL keeps to AVX2 on processors that are not Intel's. Small
// products, where oneDNN's set-up costs more than it gains, other dtypes, other devices, autocast
// and a torch whose oneDNN is missing or switched off are at::linear's.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

// torch::nn::Linear whose forward is linear(). Names and initial values of its parameters are
// torch's.
class LinearImpl : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;
  at::Tensor forward(const at::Tensor& x) { return headloom::linear(x, weight, bias); }
};
TORCH_MODULE(Linear);

}  // namespace headloom
