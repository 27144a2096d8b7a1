#pragma once

#include <ATen/core/Tensor.h>

namespace headloom {

// Inverted dropout: x times 1 / (1 - p), or 0 with probability p, while training; x itself
// otherwise. Any shape, float64, float32, bfloat16 or float16. The mask follows from a seed that
// torch's default generator draws (tensor/dropout.h), is the same on every device, and is made
// again in the backward pass instead of being kept.
at::Tensor dropout(const at::Tensor& x, double p, bool training);

}  // namespace headloom
