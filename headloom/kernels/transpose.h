#pragma once

#include "headloom/kernels/simd.h"

// Transposition in registers, a square of kWidth x kWidth at a time.
namespace headloom::kernels::HEADLOOM_ISA {

// Swaps blocks: lanes (l with l & kBlock) of `low` against lanes (l without) of `high`.
template <int kBlock, class T, int... kLane>
HEADLOOM_INLINE void exchange(Vec<T>& low, Vec<T>& high, std::integer_sequence<int, kLane...>) {
  constexpr int kSecond = kWidth<T>;
  const auto a = low.native, b = high.native;
  low.native =
      __builtin_shufflevector(a, b, ((kLane & kBlock) ? kSecond + kLane - kBlock : kLane)...);
  high.native =
      __builtin_shufflevector(a, b, ((kLane & kBlock) ? kSecond + kLane : kLane + kBlock)...);
}

template <int kBlock, class T>
HEADLOOM_INLINE void exchange_all(Vec<T> (&rows)[kWidth<T>]) {
  if constexpr (kBlock > 0) {
    unroll<kWidth<T>>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      if constexpr ((i & kBlock) == 0) {
        exchange<kBlock>(rows[i], rows[i + kBlock], std::make_integer_sequence<int, kWidth<T>>{});
      }
    });
    exchange_all<kBlock / 2>(rows);
  }
}

// rows[i] lane j becomes rows[j] lane i: halves are exchanged, then quarters, down to single lanes.
template <class T>
HEADLOOM_INLINE void transpose(Vec<T> (&rows)[kWidth<T>]) {
  exchange_all<kWidth<T> / 2>(rows);
}

// One square, or a part of one at an edge: from[rows, columns] to to[columns, rows], times factor.
template <class From, class To, class T, class Rows, class Columns>
HEADLOOM_INLINE void transpose_square(const From* from, int64_t from_stride, To* to,
                                      int64_t to_stride, Vec<T> factor, Rows rows,
                                      Columns columns) {
  Vec<T> square[kWidth<T>];
  unroll<kWidth<T>>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    square[i] = i < rows ? load_at(from + i * from_stride, columns) * factor : zero<T>();
  });
  transpose(square);
  unroll<kWidth<T>>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    if (i < columns) {
      store_at(to + i * to_stride, rows, square[i]);
    }
  });
}

// to[columns, rows] = factor * transpose of from[rows, columns]; converts between storage types
// whose accumulator is the same. Strides count elements, rows are contiguous, any size. The arrays
// do not overlap.
template <class From, class To>
void transpose_tile(const From* from, int64_t from_stride, int64_t rows, int64_t columns, To* to,
                    int64_t to_stride, accumulator_t<From> factor = 1) {
  using T = accumulator_t<From>;
  const Vec<T> factors = set1(factor);
  constexpr Index<kWidth<T>> kFull{};
  for (int64_t i = 0; i < rows; i += kWidth<T>) {
    const int64_t rows_left = rows - i < kWidth<T> ? rows - i : kWidth<T>;
    for (int64_t j = 0; j < columns; j += kWidth<T>) {
      const int64_t columns_left = columns - j < kWidth<T> ? columns - j : kWidth<T>;
      const From* source = from + i * from_stride + j;
      To* target = to + j * to_stride + i;
      if (rows_left == kWidth<T> && columns_left == kWidth<T>) {
        transpose_square(source, from_stride, target, to_stride, factors, kFull, kFull);
      } else {
        transpose_square(source, from_stride, target, to_stride, factors, rows_left, columns_left);
      }
    }
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA
