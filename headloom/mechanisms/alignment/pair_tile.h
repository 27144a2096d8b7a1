#pragma once

#include "headloom/kernels/exp.h"
#include "headloom/kernels/gemm_tile.h"
#include "headloom/kernels/transpose.h"

// What the streaming losses share: products of pairs of points with queries in the lanes.
//
// Points that take part are gathered once, converted to the accumulator's type: keys as rows, whose
// elements are broadcast, queries as panels [depth][kPanel], whose rows are vectors.
namespace headloom::kernels::HEADLOOM_ISA {

// Queries of a panel.
inline constexpr int kPanelVectors = 2;
template <class T>
inline constexpr int64_t kPanel = kPanelVectors* kWidth<T>;

// Keys whose products are in registers together: kPairKeys * kPanelVectors sums for each of two
// products, beside the vectors that the sums are made of.
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kPairKeys = 4;
#else
inline constexpr int kPairKeys = 2;
#endif

template <class T, int kKeys>
using PairBlock = Vec<T>[kKeys][kPanelVectors];

HEADLOOM_INLINE int64_t at_most(int64_t value, int64_t limit) {
  return value < limit ? value : limit;
}
HEADLOOM_INLINE int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// sum[k][.] += keys[k, :] * panel[:, .]
template <int kKeys, class T>
HEADLOOM_INLINE void add_products(PairBlock<T, kKeys>& sum, const T* keys, int64_t key_stride,
                                  const T* panel, int64_t depth) {
  for (int64_t d = 0; d < depth; ++d) {
    Vec<T> queries[kPanelVectors];
    unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
      queries[q] = load(panel + d * kPanel<T> + q * kWidth<T>);
    });
    unroll<kKeys>([&](auto k) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> element = broadcast(keys + k * key_stride + d);
      unroll<kPanelVectors>(
          [&](auto q) HEADLOOM_INLINE_LAMBDA { sum[k][q] = fma(element, queries[q], sum[k][q]); });
    });
  }
}

// Calls body(key, Index<count>) over `keys` keys, kPairKeys at a time, then one by one.
template <class Body>
HEADLOOM_INLINE void for_each_block(int64_t keys, const Body& body) {
  int64_t j = 0;
  for (; j + kPairKeys <= keys; j += kPairKeys) {
    body(j, Index<kPairKeys>{});
  }
  for (; j < keys; ++j) {
    body(j, Index<1>{});
  }
}

// to[i, :] = from[index[i], :] for i < count, rows filled up to `to_stride` with zeros.
template <class S>
void gather_rows(const S* from, int64_t width, const int64_t* index, int64_t count,
                 accumulator_t<S>* to, int64_t to_stride) {
  using T = accumulator_t<S>;
  for (int64_t i = 0; i < count; ++i) {
    const S* row = from + index[i] * width;
    T* target = to + i * to_stride;
    for_each_vector<T>(width, [&](int64_t d, auto lanes) HEADLOOM_INLINE_LAMBDA {
      store_at(target + d, lanes, load_at(row + d, lanes));
    });
    for (int64_t d = width; d < to_stride; ++d) {
      target[d] = 0;
    }
  }
}

// to[index[i], :] = factor * from[i, :], the reverse.
template <class S>
void scatter_rows(const accumulator_t<S>* from, int64_t from_stride, int64_t width,
                  const int64_t* index, int64_t count, S* to, accumulator_t<S> factor) {
  using T = accumulator_t<S>;
  const Vec<T> factors = set1(factor);
  for (int64_t i = 0; i < count; ++i) {
    const T* row = from + i * from_stride;
    S* target = to + index[i] * width;
    for_each_vector<T>(width, [&](int64_t d, auto lanes) HEADLOOM_INLINE_LAMBDA {
      store_at(target + d, lanes, load_at(row + d, lanes) * factors);
    });
  }
}

// panel[depth][kPanel] = factor * transpose of rows[count, depth]; lanes from count on are zeros.
template <class T>
void make_panel(const T* rows, int64_t row_stride, int64_t count, int64_t depth, T factor,
                T* panel) {
  if (count < kPanel<T>) {
    for (int64_t i = 0; i < depth * kPanel<T>; ++i) {
      panel[i] = 0;
    }
  }
  transpose_tile(rows, row_stride, count, depth, panel, kPanel<T>, factor);
}

// -inf in the lanes from count on, `value` in the others.
template <class T>
HEADLOOM_INLINE void lane_starts(int64_t count, T value, Vec<T> (&start)[kPanelVectors]) {
  unroll<kPanelVectors>([&](auto q) HEADLOOM_INLINE_LAMBDA {
    const int64_t left = count - q * kWidth<T>;
    const int64_t lanes = left < 0 ? 0 : at_most(left, kWidth<T>);
    start[q] = select(first_lanes<T>(lanes), set1(value), set1(-ExpConstants<T>::kInfinity));
  });
}

template <class T>
HEADLOOM_INLINE T square_sum(const T* row, int64_t width) {
  T sum = 0;
  for (int64_t d = 0; d < width; ++d) {
    sum += row[d] * row[d];
  }
  return sum;
}

// The largest square of a row's length.
template <class T>
T largest_square(const T* rows, int64_t row_stride, int64_t count, int64_t width) {
  T most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T square = square_sum(rows + i * row_stride, width);
    most = square > most ? square : most;
  }
  return most;
}

// sums[width, kPanel] += transpose of rows[keys, width] times weights[keys, kPanel]
template <class T>
void add_to_queries(const T* rows, int64_t width, int64_t keys, const T* weights, T* sums) {
  const GemmArgs<T> g{width,   kPanel<T>, keys, rows,      1,   width,
                      weights, kPanel<T>, sums, kPanel<T>, true};
  gemm_tile(g, Accumulate{});
}

// sums[keys, width] += weights[keys, kPanel] times rows[kPanel, width]; width in whole vectors.
template <class T>
void add_to_keys(const T* weights, int64_t keys, const T* rows, int64_t width, T* sums) {
  GemmArgs<T> g{keys, width, kPanel<T>, weights, kPanel<T>, 1, rows, width, sums, width, true};
#if defined(HEADLOOM_ISA_avx512)
  // A single vector of columns: as many rows as hide the latency and share its loads.
  if (width == kWidth<T>) {
    constexpr int64_t kRows = 16;
    int64_t row = 0;
    for (; row + kRows <= keys; row += kRows) {
      gemm_block<kRows, 1>(g, row, 0, Index<kWidth<T>>{}, Accumulate{});
    }
    g.m = keys - row;
    g.a += row * kPanel<T>;
    g.c += row * width;
  }
#endif
  gemm_tile(g, Accumulate{});
}

}  // namespace headloom::kernels::HEADLOOM_ISA
