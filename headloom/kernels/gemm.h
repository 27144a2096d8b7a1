#pragma once

#include <cstdint>

#include "headloom/base/numeric.h"
#include "headloom/kernels/isa.h"

// Products of small matrices that are in cache: C[m, n] = A[m, k] B[k, n], or C += A B.
// Nothing is packed. A has two strides, so that a transposed A (column_stride > 1) costs no copy;
// rows of B and C are contiguous. Strides count elements. Sizes may be 0 (k = 0 gives zeros, or
// leaves C as it is when accumulating). C overlaps neither A nor B.
//
// Each element is summed in order of k, with fused multiply-adds where the processor has them, so
// its error is at most (k + 1) eps sum_k |a b|. Kernel files use the templates of gemm_tile.h
// instead and add their own epilogue.
namespace headloom::kernels {

template <class T, class M = T>
struct GemmArgs {
  int64_t m, n, k;
  const M* a;  // [m, k]: a[i * a_row_stride + j * a_column_stride]
  int64_t a_row_stride, a_column_stride;
  const M* b;  // [k, n]
  int64_t b_row_stride;
  T* c;  // [m, n]
  int64_t c_row_stride;
  bool accumulate = false;  // C += A B
};

struct GemmTable {
  void (*f32)(const GemmArgs<float>&);
  void (*f64)(const GemmArgs<double>&);
  // Factors of bfloat16, sums of float32; rows of A or its columns are contiguous.
  void (*bf16)(const GemmArgs<float, BFloat16>&);
};

// The kernels of one instruction set; refuses one that does not run here.
const GemmTable& gemm_table(Isa isa);

// With active_isa().
void gemm(const GemmArgs<float>& args);
void gemm(const GemmArgs<double>& args);
void gemm(const GemmArgs<float, BFloat16>& args);

}  // namespace headloom::kernels
