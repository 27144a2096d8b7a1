#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"
#include "headloom/mechanisms/alignment/point_selection.h"

// Streaming conditional transport between sets of points (transport_cpu.cpp): no array of M x N
// elements, one exponential a pair in the usual case.
//
// B batch, H heads, M queries, N keys, r width of the navigator's vectors, p width of the critic's.
//
// s_ij = u_i.v_j / temperature; x_ij = f_i.g_j (cosine) or |f_i - g_j| (Euclidean);
// P_ij = softmax over the keys of s_ij, R_ij = softmax over the queries of s_ij;
// D_i = sum_j P_ij x_ij, E_j = sum_i R_ij x_ij. The loss is linear in D and E; its gradients with
// respect to s and x are, with the weights a_i and b_j that the loss gives D_i and E_j,
//
//   A_ij = a_i P_ij (x_ij - D_i) + b_j R_ij (x_ij - E_j)      W_ij = a_i P_ij + b_j R_ij
//
// Logits are taken in base 2 and shifted: when a bound of them (the largest |u| times the largest
// |v|) is small enough that no shifted exponential can vanish, both softmaxes share the shift and
// the exponential; otherwise rows and columns have maxima of their own, which a pass of its own
// finds, and two exponentials a pair.
namespace headloom::kernels {

enum class TransportCost { kCosine, kEuclidean };

// What the forward pass keeps of each point, kTransportState numbers: the shift of its logits, the
// sum of its shifted exponentials, and D or E.
inline constexpr int64_t kTransportState = 3;

template <class S>
struct TransportArgs {
  using T = accumulator_t<S>;

  int64_t heads;
  Selection queries, keys;
  int64_t r, p;
  const S *u, *f;  // [B, H, M, r], [B, H, M, p], contiguous
  const S *v, *g;  // [B, H, N, r], [B, H, N, p]
  double inverse_temperature;
  TransportCost cost;
  // The queries of one head are cut into `splits` ranges, so that few heads still occupy the
  // processor. Sums over queries are added up in the order of the ranges.
  int64_t splits;
  T* query_state;  // [B, H, M, kTransportState]
  T* key_state;    // [B, H, N, kTransportState]

  // The backward pass reads the states, and these:
  const double *query_weight, *key_weight;  // [B, H]: a_i and b_j, the same for all points
  S *grad_u, *grad_f, *grad_v, *grad_g;
};

// A pass: the ranges of each head in any order, then the sums over the ranges of each head.
// `partial` elements of what a range leaves for the second step, the ranges of a head one after
// another; `workspace` elements that a step may use.
template <class S>
struct TransportPass {
  using T = accumulator_t<S>;
  int64_t (*workspace)(const TransportArgs<S>&);
  int64_t (*partial)(const TransportArgs<S>&);
  void (*range)(const TransportArgs<S>&, int64_t head, int64_t split, T* partial, T* workspace);
  void (*end)(const TransportArgs<S>&, int64_t head, T* partials, T* workspace);
};

struct TransportTable {
  TransportPass<double> f64;
  TransportPass<float> f32;
  TransportPass<BFloat16> bf16;
  TransportPass<Half> f16;
};

// The kernels of one instruction set; refuses one that does not run here.
const TransportTable& transport_forward_table(Isa isa);
const TransportTable& transport_backward_table(Isa isa);

}  // namespace headloom::kernels
