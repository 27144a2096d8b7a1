#pragma once

#include "headloom/kernels/attention_tile.h"

// What the backward passes share: the gradient of the logits of one tile of queries and one block
// of keys, whose weights are computed again from the log-sums of the forward pass.
namespace headloom::kernels::HEADLOOM_ISA {

// Keys and values of a head in the type of sums.
template <class S>
struct GradHeads {
  using T = accumulator_t<S>;
  const AttentionArgs<S>& args;
  T *gathered_k, *gathered_v;
  Rows<T> keys, values;

  GradHeads(const AttentionGradArgs<S>& grad, Space<T>& space) : args(grad.call) {
    const Longest longest = longest_of(args);
    gathered_k = space.take(gathered_size(args.k, args.width, longest));
    gathered_v = space.take(gathered_size(args.v, args.value_width, longest));
  }

  void enter(const AttentionSequence& s, int64_t head) {
    keys = head_rows(args.k, s.batch, head, s.key_begin, s.keys, args.width,
                     gathers(args.k, args.width, s.queries), gathered_k);
    values = head_rows(args.v, s.batch, head, s.key_begin, s.keys, args.value_width,
                       gathers(args.v, args.value_width, s.queries), gathered_v);
  }
};

// Epilogue of the logits: 2^(logit + bias - log2_sum), the weight.
template <class T>
struct WeightOfLogit {
  static constexpr bool kReadsC = false;
  const T* log2_sum;  // [queries]
  const T* bias;      // [keys, kQueryTile] or nullptr
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> logit, Vec<T>, int64_t key, int64_t query) const {
    if (bias) logit = logit + load(bias + key * kQueryTile + query);
    return exp2(logit - load(log2_sum + query));
  }
};

// Epilogue of the gradient of the weights: scale w (m g - delta), the gradient of the logit, with m
// the multiplier of dropout and delta = sum over keys of w m g.
template <class T>
struct GradOfLogit {
  static constexpr bool kReadsC = false;
  const T* weights;  // [keys, kQueryTile]
  const T* dropout;  // [keys, kQueryTile] or nullptr
  const T* delta;    // [queries]
  T scale;
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> grad, Vec<T>, int64_t key, int64_t query) const {
    const int64_t element = key * kQueryTile + query;
    if (dropout) grad = grad * load(dropout + element);
    return load(weights + element) * set1(scale) * (grad - load(delta + query));
  }
};

// sum of a * b over a row
template <class S, class T>
HEADLOOM_INLINE T dot_row(const S* a, const T* b, int64_t width) {
  return sum_lanes(reduce_vectors(
      width, zero<T>(),
      [&](Vec<T> sum, int64_t i, auto count)
          HEADLOOM_INLINE_LAMBDA { return fma(load_at(a + i, count), load_at(b + i, count), sum); },
      [](Vec<T> x, Vec<T> y) HEADLOOM_INLINE_LAMBDA { return x + y; }));
}

// log2_sum and delta of rows [query, query + rows) for kQueryTile lanes: +inf where a query sees
// nothing, so that it has no weight.
template <class S>
void load_sums(const AttentionGradArgs<S>& grad, const TileAt& at, Rows<accumulator_t<S>> grad_rows,
               accumulator_t<S>* log2_sum, accumulator_t<S>* delta) {
  using T = accumulator_t<S>;
  const AttentionArgs<S>& args = grad.call;
  const AttentionSequence& s = at.sequence;
  const int64_t row = s.query_begin + at.query;
  const T* sums = args.log2_sum.at(s.batch, at.head, row);
  for (int64_t i = 0; i < kQueryTile; ++i) {
    const bool sees = i < at.rows && sums[i] != -ExpConstants<T>::kInfinity;
    log2_sum[i] = sees ? sums[i] : ExpConstants<T>::kInfinity;
    delta[i] = i < at.rows ? dot_row(args.out.at(s.batch, at.head, row + i), grad_rows.at(i),
                                     args.value_width)
                           : T(0);
  }
}

// One tile of queries on the way back, and its products with one block of keys after the other.
template <class S>
struct GradTile {
  using T = accumulator_t<S>;
  const AttentionGradArgs<S>& grad;
  const AttentionArgs<S>& args;
  QueryTile<T> queries;
  T *grad_rows, *grad_lanes;  // of the output: [queries, Dv], [Dv, kQueryTile]
  T *log2_sum, *delta;        // [kQueryTile]
  T* weights;                 // [kKeyBlock, kQueryTile], as the output saw them: after dropout
  T* grad_logits;             // the same shape
  T *bias, *dropout;          // the same shape, or nullptr

  GradTile(const AttentionGradArgs<S>& arguments, Space<T>& space)
      : grad(arguments), args(arguments.call), queries(args, space) {
    constexpr int64_t kTile = kKeyBlock * kQueryTile;
    grad_rows = space.take(kQueryTile * args.value_width);
    grad_lanes = space.take(kQueryTile * args.value_width);
    log2_sum = space.take(kQueryTile);
    delta = space.take(kQueryTile);
    weights = space.take(kTile);
    grad_logits = space.take(kTile);
    bias = args.bias.data ? space.take(kTile) : nullptr;
    dropout = args.dropout_p > 0 ? space.take(kTile) : nullptr;
  }

  void load(const TileAt& at) {
    const AttentionSequence& s = at.sequence;
    const int64_t Dv = args.value_width, row = s.query_begin + at.query;
    load_queries(args, at, queries);
    copy_rows(grad.grad_out.at(s.batch, at.head, row), grad.grad_out.row_stride, at.rows, Dv,
              grad_rows, Dv);
    transpose_queries<T>({grad_rows, Dv}, at.rows, Dv, grad_lanes, T(1));
    load_sums(grad, at, {grad_rows, Dv}, log2_sum, delta);
  }

  // weights and grad_logits of one block; the latter times scale.
  void differentiate(const TileAt& at, const Block& block, const GradHeads<S>& heads, T scale) {
    const int64_t D = args.width, Dv = args.value_width, lanes = lanes_for<T>(at.rows);
    if (bias) bias_tile(args, at, block, bias);
    gemm_tile(GemmArgs<T>{block.keys, lanes, D, heads.keys.at(block.key), heads.keys.stride, 1,
                          queries.lanes, kQueryTile, weights, kQueryTile},
              WeightOfLogit<T>{log2_sum, bias});
    hide(block, lanes, T(0), weights);
    if (dropout) {
      dropout_tile(dropout_at(args, at, block.key), T(1 / (1 - args.dropout_p)), block.keys, lanes,
                   dropout, kQueryTile);
    }
    gemm_tile(GemmArgs<T>{block.keys, lanes, Dv, heads.values.at(block.key), heads.values.stride, 1,
                          grad_lanes, kQueryTile, grad_logits, kQueryTile},
              GradOfLogit<T>{weights, dropout, delta, scale});
    if (dropout) multiply_tile(dropout, block.keys, lanes, weights);
  }
};

}  // namespace headloom::kernels::HEADLOOM_ISA
