#pragma once

#include <ATen/core/Tensor.h>

namespace headloom {

// Cross entropy with label smoothing e (Szegedy et al., 2016, section 7), summed over the rows
// whose target is not -100:
//   -(1 - e) log p[target] - e / V sum_v log p[v],   p = softmax(logits).
// logits [N, V] float32 or float64 (two-byte types are widened), targets [N] int64, 0 <= e < 1.
// A scalar. The gradient is made in one pass over the logits; on the processor there is none of
// second order.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets,
                             double smoothing = 0.0);

}  // namespace headloom
