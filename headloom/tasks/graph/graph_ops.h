#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "headloom/tasks/graph/graph_data.h"

// Operations on sparse rows, in time and memory of the entries: on the processor, on all threads,
// in fixed order of summation; float32 and float64; differentiable once. N rows, E entries, H
// heads, F features a head, C columns. The rows outlive the gradients that use them.
namespace headloom::tasks::graph {

// out[n, h, :] = sum over the entries e of row n of values[e, h] weight[column of e, h, :].
// values [E, H] takes no gradient, weight [C, H, F] -> [N, H, F].
at::Tensor sparse_linear(const std::shared_ptr<const SparseRows>& rows, const at::Tensor& values,
                         const at::Tensor& weight);

// Attention over neighbourhoods (Velickovic et al., Graph Attention Networks, ICLR 2018):
//   w_e = softmax over the entries e of row n of LeakyReLU_0.2(left[n, h] + right[column of e, h])
//   out[n, h, :] = sum_e keep[e, h] w_e z[column of e, h, :]
// z [N, H, F], left and right [N, H] -> [N, H, F]. keep [E, H], or undefined: dropout's
// multipliers.
at::Tensor neighbourhood_attention(const std::shared_ptr<const SparseRows>& rows,
                                   const at::Tensor& z, const at::Tensor& left,
                                   const at::Tensor& right, const at::Tensor& keep);

}  // namespace headloom::tasks::graph
