#pragma once

#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"

// The two ways in which both operators are computed. Arguments are checked already.
namespace headloom {

// On the processor: one fused kernel (light_conv_kernels.h). Memory beyond the operands: a tile a
// thread, and for gradients that all positions share a few copies of them.
at::Tensor conv_forward_fused(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call);
ConvGradients conv_backward_fused(const at::Tensor& grad_out, const at::Tensor& x,
                                  const at::Tensor& weight, Wanted wanted, const ConvCall& call);

// On other devices: tiles of positions as products with band matrices, in torch's operations. A
// band matrix multiplies rows that no tap reads by zero, so a NaN can reach the other positions of
// its tile.
at::Tensor conv_forward_banded(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call);
ConvGradients conv_backward_banded(const at::Tensor& grad_out, const at::Tensor& x,
                                   const at::Tensor& weight, Wanted wanted, const ConvCall& call);

}  // namespace headloom
