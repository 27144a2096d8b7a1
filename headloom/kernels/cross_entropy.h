#pragma once

#include <cstdint>

#include "headloom/kernels/isa.h"

// What cross entropy needs of rows of logits, for double and float.
namespace headloom::kernels {

// Of each row, from which its log-softmax follows without another pass.
template <class T>
struct RowSumsArgs {
  int64_t rows, length;
  const T* x;  // [rows, length]
  int64_t x_stride;
  T* maximum;      // [rows]
  T* exponential;  // [rows]: sum_j e^(x[j] - maximum)
  T* below;        // [rows]: sum_j (x[j] - maximum)
};

// Of a row's loss -(1 - e) log p[target] - e / length sum_j log p[j], p = softmax(x), times
// `scale`: grad[j] = scale (p[j] - e / length - (1 - e) [j = target]). A row whose target is
// negative gets zeros.
template <class T>
struct CrossEntropyGradArgs {
  int64_t rows, length;
  const T* x;
  int64_t x_stride;
  const T* maximum;
  const T* exponential;
  const int64_t* targets;  // [rows]
  double smoothing, scale;
  T* grad;  // [rows, length]
  int64_t grad_stride;
};

template <class T>
struct CrossEntropyKernels {
  void (*row_sums)(const RowSumsArgs<T>&);
  void (*grad)(const CrossEntropyGradArgs<T>&);
};

struct CrossEntropyTable {
  CrossEntropyKernels<double> f64;
  CrossEntropyKernels<float> f32;
};

// The kernels of one instruction set; refuses one that does not run here.
const CrossEntropyTable& cross_entropy_table(Isa isa);

}  // namespace headloom::kernels
