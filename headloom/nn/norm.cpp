#include "headloom/nn/norm.h"

#include <ATen/ATen.h>

#include "headloom/nn/tokens.h"

namespace headloom::nn {

using at::Tensor;

NormImpl::NormImpl(const std::string& type, int64_t dim, double eps) : eps_(eps) {
  check_choice("norm", "norm_type", type, {"layer", "rms"});
  weight_ = register_parameter("weight", at::ones({dim}));
  if (type == "layer") bias_ = register_parameter("bias", at::zeros({dim}));
}

Tensor NormImpl::forward(const Tensor& x) {
  if (bias_.defined()) return at::layer_norm(x, weight_.sizes(), weight_, bias_, eps_);
  const Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps_);  // [..., 1]
  return (wide * scale).to(x.scalar_type()) * weight_;
}

}  // namespace headloom::nn
