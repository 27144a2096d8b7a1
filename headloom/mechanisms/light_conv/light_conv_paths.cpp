// Which way a call goes.
#include "headloom/mechanisms/light_conv/light_conv_paths.h"

#include "headloom/base/check.h"

namespace headloom {
namespace {

using at::Tensor;

bool has_fused_kernel(const Tensor& x) {
  return x.device().is_cpu();
}

}  // namespace

Tensor conv_forward(const Tensor& x, const Tensor& weight, const ConvCall& call) {
  return has_fused_kernel(x) ? conv_forward_fused(x, weight, call)
                             : conv_forward_banded(x, weight, call);
}

ConvGradients conv_backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight,
                            Wanted wanted, const ConvCall& call) {
  HEADLOOM_CHECK(grad_out.sizes() == x.sizes(), call.op, cat("grad_out of shape ", x.sizes()),
                 cat("shape ", grad_out.sizes()));
  return has_fused_kernel(x) ? conv_backward_fused(grad_out, x, weight, wanted, call)
                             : conv_backward_banded(grad_out, x, weight, wanted, call);
}

}  // namespace headloom
