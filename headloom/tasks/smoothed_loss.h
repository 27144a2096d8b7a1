#pragma once

#include <ATen/core/Tensor.h>

namespace headloom::tasks {

// Cross entropy with label smoothing (Szegedy et al., 2016, section 7), summed over the rows whose
// target is not -100:
//   -(1 - e) log p[target] - e / V sum_v log p[v],   p = softmax(logits).
// logits [N, V] float32 or float64, targets [N] int64, 0 <= e < 1. The gradient is made in one pass
// over the logits; there is none of second order.
at::Tensor smoothed_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                  double smoothing);

}  // namespace headloom::tasks
