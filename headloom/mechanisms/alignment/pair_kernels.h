#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Sums over the keys of 2^z_ij, z_ij = x_i.y_j + query_bias_i + key_bias_j, for each query: what
// Sinkhorn's iterations, their gradients and the Gaussian kernel of a mean discrepancy are made of.
// No array of queries x keys exists. Every sum belongs to one query, so that calls on ranges of
// queries need no order.
//
// The queries come as panels (make_panels) with the factor of x.y folded in; keys as rows.
namespace headloom::kernels {

template <class T>
struct PairArgs {
  int64_t keys, depth;
  const T* panels;      // of the queries
  const T* rows;        // [keys, depth]
  const T* key_bias;    // [keys]
  const T* query_bias;  // [queries rounded up to panels]; not read by log_sum
};

// [queries rounded up to panels] each.
template <class T>
struct PairSums {
  T* sum;                      // sum_j 2^z
  const T* key_weight;         // [keys]; nullptr: no more sums
  T *weighted, *weighted_log;  // sum_j 2^z key_weight_j, sum_j 2^z z
};

// Weights w_ij = 2^z_ij (query_term_i + key_term_j + log_term z_ij).
template <class T>
struct PairGradient {
  const T *query_term, *key_term;
  T log_term;
  T* rows;       // [queries rounded up to panels, depth]: sum_j w_ij y_j
  T* sum;        // [queries rounded up to panels]: sum_j w_ij
  T* workspace;  // [depth, panel]
};

template <class T>
struct PairKernels {
  int64_t panel;  // queries of a panel
  // panels [panels][depth][panel] of factor * rows[count, depth]; the last is filled up with zeros.
  void (*make_panels)(const T* rows, int64_t count, int64_t depth, T factor, T* panels);
  // The panels from `begin` to `end` - 1. log_sum: log2 sum_j 2^(x_i.y_j + key_bias_j), with a
  // running maximum; the other two assume that 2^z neither overflows nor vanishes.
  void (*log_sum)(const PairArgs<T>&, int64_t begin, int64_t end, T* log2_sum);
  void (*sums)(const PairArgs<T>&, int64_t begin, int64_t end, const PairSums<T>&);
  void (*gradient)(const PairArgs<T>&, int64_t begin, int64_t end, const PairGradient<T>&);
};

// Rows that take part, to and from the accumulator's type.
template <class S>
struct RowKernels {
  using T = accumulator_t<S>;
  // to[i, :] = from[index[i], :], i < count
  void (*gather)(const S* from, int64_t width, const int64_t* index, int64_t count, T* to);
  // to[index[i], :] = factor * from[i, :]
  void (*scatter)(const T* from, int64_t width, const int64_t* index, int64_t count, S* to,
                  T factor);
};

struct PairTable {
  PairKernels<double> f64;
  PairKernels<float> f32;
  RowKernels<double> rows_f64;
  RowKernels<float> rows_f32;
  RowKernels<BFloat16> rows_bf16;
  RowKernels<Half> rows_f16;
};

// The kernels of one instruction set; refuses one that does not run here.
const PairTable& pair_table(Isa isa);

}  // namespace headloom::kernels
