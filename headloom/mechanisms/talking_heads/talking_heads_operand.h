#pragma once

#include "headloom/mechanisms/talking_heads/talking_heads_mix.h"

// Rows of queries, keys, values and tiles as the operands of products (see bf16_pairs.h): where
// they are when they are of the type M that is multiplied, else converted into `scratch`.
namespace headloom::kernels::HEADLOOM_ISA {

template <class M>
struct Operand {
  const M* data;
  int64_t row_stride,
      column_stride;  // as GemmArgs has them; a right operand has its row_stride only
};

// Elements of scratch for `rows` rows.
template <class M>
HEADLOOM_INLINE int64_t scratch_size(int64_t rows, int64_t width) {
  return group_rows<M>(rows) * group_stride<M>(width);
}

// A [rows, width], left of a product over the width.
template <class M, class S>
HEADLOOM_INLINE Operand<M> left_rows(const S* from, int64_t stride, int64_t rows, int64_t width,
                                     M* scratch) {
  if constexpr (sizeof(S) == sizeof(M)) {
    return {from, stride, kGroup<M>};
  } else {
    for (int64_t i = 0; i < rows; ++i) convert_row(from + i * stride, scratch + i * width, width);
    return {scratch, width, 1};
  }
}

// The transpose of A [rows, width], left of a product over the rows.
template <class M, class S>
HEADLOOM_INLINE Operand<M> left_columns(const S* from, int64_t stride, int64_t rows, int64_t width,
                                        M* scratch) {
  if constexpr (kGroup<M> == 2) {
    interleave_rows(from, stride, rows, width, scratch);
    return {scratch, 2, group_stride<M>(width)};
  } else {
    const Operand<M> as_rows = left_rows(from, stride, rows, width, scratch);
    return {as_rows.data, 1, as_rows.row_stride};
  }
}

// B [rows, width], right of a product over the rows.
template <class M, class S>
HEADLOOM_INLINE Operand<M> right_rows(const S* from, int64_t stride, int64_t rows, int64_t width,
                                      M* scratch) {
  if constexpr (kGroup<M> == 2) {
    interleave_rows(from, stride, rows, width, scratch);
    return {scratch, group_stride<M>(width), 1};
  } else {
    return left_rows(from, stride, rows, width, scratch);
  }
}

// One head of a tile, left of a product over its lanes.
template <class M, class T>
HEADLOOM_INLINE Operand<M> left_tile(const T* head, int64_t rows, int64_t lanes, M* scratch) {
  if constexpr (kGroup<M> == 2) {
    round_rows(head, rows, lanes, scratch);
    return {scratch, lanes, 2};
  } else {
    return {head, lanes, 1};
  }
}

// turned[width, lanes] = factor times the transpose of A [rows, width], zeros in lanes that are no
// row: right of a product over the width. Pairs are taken as they are, without the factor.
template <class M, class S>
HEADLOOM_INLINE void right_columns(const S* from, int64_t stride, int64_t rows, int64_t width,
                                   M* turned, int64_t lanes, double factor) {
  if constexpr (kGroup<M> == 2) {
    interleave_columns(from, stride, rows, width, turned, lanes);
  } else {
    if (rows < lanes) fill(turned, width * lanes, M(0));
    transpose_tile(from, stride, rows, width, turned, lanes, static_cast<M>(factor));
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA
