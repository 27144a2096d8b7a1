#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace headloom {

// Distances between two sets of points, the queries and the keys of an attention head, as Zhang et
// al., Alignment Attention by Matching Key and Query Distributions (NeurIPS 2021) take them: one
// value for each sample and head, never across the batch.
//
// B batch, H heads, M queries, N keys. Points have equal weights, 1 / (points that take part). A
// mask [B, M] or [B, N] is bool and true where a point takes no part; such points change nothing
// and get zero gradients, and a set without points gives 0. Any strides; float64, float32, bfloat16
// or float16, with sums in float32 at least. On the processor no tensor of M x N elements exists,
// and results do not depend on the number of threads; on other devices differentiable torch
// operations work on chunks of queries, in bounded memory.

struct TransportOptions {
  double temperature = 1.0;     // > 0
  double rho = 0.5;             // share of the direction query to key, 0 to 1
  std::string cost = "cosine";  // or "euclidean"
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

// Bidirectional conditional transport (section 3.3; Zheng and Zhou, 2021).
//
//   s_ij = u_i.v_j / temperature,   P = softmax of s over the keys,   R = softmax over the queries
//   L = rho mean_i sum_j P_ij c_ij + (1 - rho) mean_j sum_i R_ij c_ij
//
// u [B, H, M, r] and v [B, H, N, r] are the navigator's vectors of queries and keys, f [B, H, M, p]
// and g [B, H, N, p] the critic's. cost "cosine": c_ij = 1 - f_i.g_j, the cosine distance when f
// and g have unit length; "euclidean": c_ij = |f_i - g_j|, whose gradient is 0 where it is below
// 1e-6. -> [B, H]. Differentiable twice; the second derivative runs through the reference.
at::Tensor conditional_transport(const at::Tensor& u, const at::Tensor& v, const at::Tensor& f,
                                 const at::Tensor& g, const TransportOptions& options = {});

struct SinkhornDivergenceOptions {
  double eps = 0.1;                   // > 0: strength of the entropy
  std::string cost = "half_squared";  // c = |x - y|^2 / 2, or "cosine": c = 1 - x.y
  bool debiased = true;               // subtract half of the cost of each set to itself
  // The transport cost <pi, c> of the optimal plan instead of the regularised optimum
  // <pi, c> + eps KL(pi | a b).
  bool sharp = false;
  int64_t max_iter = 200;
  double tol = 1e-5;  // stop when sum_i |sum_j pi_ij - a_i| is at most this
  // "envelope": the plan counts as constant, which is exact for the regularised optimum and an
  // approximation of the sharp cost; "implicit": the plan's own derivative is included, by the
  // implicit function theorem. Both are those of the converged problem.
  std::string gradient = "envelope";
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

// Entropic optimal transport (section 3.2; Cuturi, 2013; Feydy et al., 2019) between x [B, H, M, D]
// and y [B, H, N, D] -> [B, H]: the plan pi minimises sum_ij c_ij pi_ij + eps KL(pi | a b) among
// those with marginals a and b, by Sinkhorn's iterations in the log domain. Differentiable once.
at::Tensor sinkhorn_divergence(const at::Tensor& x, const at::Tensor& y,
                               const SinkhornDivergenceOptions& options = {});

// The same, and how far the iterations got: the largest L1 violation of a marginal, [B, H].
std::tuple<at::Tensor, at::Tensor> sinkhorn_divergence_with_error(
    const at::Tensor& x, const at::Tensor& y, const SinkhornDivergenceOptions& options = {});

struct DiscrepancyOptions {
  double bandwidth = 1.0;  // > 0
  std::optional<at::Tensor> query_mask = {}, key_mask = {};
};

// Squared maximum mean discrepancy (Gretton et al., 2012), the biased estimate:
//   mean k(x, x') + mean k(y, y') - 2 mean k(x, y),   k(x, y) = e^(-|x - y|^2 / (2 bandwidth^2))
// over all pairs, those of a point with itself included. x [B, H, M, D], y [B, H, N, D] -> [B, H].
// Differentiable twice; the second derivative runs through the reference.
at::Tensor maximum_mean_discrepancy(const at::Tensor& x, const at::Tensor& y,
                                    const DiscrepancyOptions& options = {});

}  // namespace headloom
