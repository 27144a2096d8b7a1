#pragma once

#include <ATen/core/Tensor.h>

namespace headloom {

// Weights in torch.nn.Linear's layout, y = x W^T + b. C model width, H heads, Hq heads of queries,
// D width of a head.

// Projections of ordinary attention.
struct OrdinaryProjections {
  at::Tensor q_weight, q_bias;  // [H D, C], [H D]; biases undefined where there are none
  at::Tensor k_weight, k_bias;
};

// The ordinary attention that a pairwise model is (exactly): W^Q_h = A_h^T W_g, b^Q_h = A_h^T b_g,
// W^K_h = W_g, b^K_h = b_g. weight [Hq D, C], bias [Hq D] or undefined, pairwise [H, D, D] or
// undefined (the plain symmetric form, where H = `heads`).
OrdinaryProjections ordinary_projections(const at::Tensor& weight, const at::Tensor& bias,
                                         const at::Tensor& pairwise, int64_t heads);

struct PairwiseFit {
  at::Tensor weight, bias;  // [H D, C], [H D]
  at::Tensor pairwise;      // [H, D, D]
  at::Tensor residual;      // [H]: |M - W^T A W| / |M|, Frobenius norms
};

// The pairwise form nearest to ordinary attention by least squares. Logits are x_i^T M x_j with M =
// W^Q^T W^K, the biases taken in by a constant input (that of the keys, to which the softmax is
// blind, left out). A pairwise form is an M whose row and column spaces are the same D dimensions;
// U of those dimensions maximises |U^T M U|, from the joint spaces of M and M^T by a fixed-point
// iteration that never gets worse. It finds the exact form where there is one; otherwise it may end
// in a local optimum, and `residual` says how far from M that is.
PairwiseFit nearest_pairwise(const at::Tensor& q_weight, const at::Tensor& q_bias,
                             const at::Tensor& k_weight, const at::Tensor& k_bias, int64_t heads);

}  // namespace headloom
