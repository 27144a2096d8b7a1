#pragma once

#include "headloom/mechanisms/alignment/point_selection.h"

// Sinkhorn's algorithm and the mean discrepancy on the processor, over the kernels of
// pair_kernels.h.
namespace headloom {

struct SinkhornOptions {
  double eps;
  bool cosine;    // c = 1 - x.y, otherwise |x - y|^2 / 2
  bool debiased;  // subtract half of each set's cost to itself
  bool sharp;     // <pi, c>, otherwise the regularised optimum
  bool implicit;  // gradient of the sharp cost with that of the plan
  int64_t max_iter;
  double tol;
};

// B batch, H heads, M and N points, D width. Instantiated for double, float, BFloat16 and Half.
template <class S>
struct SinkhornArgs {
  using T = accumulator_t<S>;
  int64_t batch, heads, width;
  kernels::Selection x_points, y_points;
  const S *x, *y;  // [B, H, M, D], [B, H, N, D], contiguous
  SinkhornOptions options;
  T* potentials;          // [B, H, 2 (M + N)]: what the backward pass needs
  double *value, *error;  // [B, H]; error: the largest L1 violation of a marginal
  // backward
  const double* grad_value;  // [B, H]
  S *grad_x, *grad_y;        // zeros where a point takes no part are the caller's
};
template <class S>
void sinkhorn_forward(const SinkhornArgs<S>& args);
template <class S>
void sinkhorn_backward(const SinkhornArgs<S>& args);

template <class S>
struct DiscrepancyArgs {
  int64_t batch, heads, width;
  kernels::Selection x_points, y_points;
  const S *x, *y;
  double bandwidth;
  double* value;  // [B, H]
  // backward
  const double* grad_value;
  S *grad_x, *grad_y;
};
template <class S>
void discrepancy_forward(const DiscrepancyArgs<S>& args);
template <class S>
void discrepancy_backward(const DiscrepancyArgs<S>& args);

}  // namespace headloom
