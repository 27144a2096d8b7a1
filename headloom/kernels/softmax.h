#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Softmax over contiguous rows, for double, float, BFloat16 and Half; computed in float (double for
// double). Any length. For use inside kernel files see row_softmax.h, and online_softmax.h where
// queries lie in the lanes.
namespace headloom::kernels {

// y[i, j] = e^(scale x[i, j]) / sum_j' e^(scale x[i, j']), j and j' among the positions to keep.
// The other positions, and rows that keep nothing or hold nothing but -inf, get zeros. x at
// positions not kept may be NaN. y may be x.
template <class T>
struct RowSoftmaxArgs {
  int64_t rows, length;
  const T* x;  // [rows, length]
  int64_t x_stride;
  T* y;  // [rows, length]
  int64_t y_stride;
  const uint8_t* keep = nullptr;  // [rows, length], 0: left out; nullptr: all are kept
  int64_t keep_stride = 0;        // 0: all rows share one
  double scale = 1.0;
};

// grad_x = scale y (grad_y - sum_j grad_y y), 0 at positions not kept, whose grad_y may be NaN.
// grad_x may be grad_y or y.
template <class T>
struct RowSoftmaxGradArgs {
  int64_t rows, length;
  const T* y;  // [rows, length], the forward pass's
  int64_t y_stride;
  const T* grad_y;  // [rows, length]
  int64_t grad_y_stride;
  T* grad_x;  // [rows, length]
  int64_t grad_x_stride;
  const uint8_t* keep = nullptr;
  int64_t keep_stride = 0;
  double scale = 1.0;
};

template <class T>
struct RowSoftmaxKernels {
  void (*forward)(const RowSoftmaxArgs<T>&);
  void (*backward)(const RowSoftmaxGradArgs<T>&);
};

// The weighted means that attention takes of values, from logits in base 2 that lie with the
// queries in the lanes: out[f, q] = sum_k w[k, q] values[k, f], w = 2^logits[k, q] / sum_k
// 2^logits[k, q], streamed over tiles of keys. Queries whose logits are all -inf get zeros and
// log2_sum -inf.
template <class T>
struct StreamedMeanArgs {
  int64_t keys, queries, features, key_tile;  // 1 <= key_tile <= kMaxKeyTile
  const T* logits;                            // [keys, queries]
  int64_t logits_stride;
  const T* values;  // [keys, features]
  int64_t values_stride;
  T* out;  // [features, queries]
  int64_t out_stride;
  T* log2_sum;  // [queries]: log2 sum_k 2^logits[k, q]

  static constexpr int64_t kMaxKeyTile = 64, kMaxFeatures = 64;
};

struct SoftmaxTable {
  RowSoftmaxKernels<double> f64;
  RowSoftmaxKernels<float> f32;
  RowSoftmaxKernels<BFloat16> bf16;
  RowSoftmaxKernels<Half> f16;
  void (*streamed_mean_f64)(const StreamedMeanArgs<double>&);
  void (*streamed_mean_f32)(const StreamedMeanArgs<float>&);
};

// The kernels of one instruction set; refuses one that does not run here.
const SoftmaxTable& softmax_table(Isa isa);

}  // namespace headloom::kernels
