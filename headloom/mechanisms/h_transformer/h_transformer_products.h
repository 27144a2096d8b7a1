#pragma once

#include "headloom/kernels/gemm_tile.h"

// The products of a tile: queries are lanes where scores are made, and rows where what they score
// is added up, so that neither keys nor values have to be transposed. lanes: the tile's queries.
namespace headloom::kernels::HEADLOOM_ISA {

// With one vector of lanes a product needs more rows to hide the latency of its additions.
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kTallRows = 16;
#elif defined(HEADLOOM_ISA_avx2)
inline constexpr int kTallRows = 12;
#else
inline constexpr int kTallRows = 10;
#endif

struct Nothing {
  HEADLOOM_INLINE void operator()() const {}
};

// c[m, lanes] = epilogue(a[m, k] b[k, lanes]); rows of b and c are the tile's. before() is called
// for each block of rows.
template <int kVectors, class T, class Epilogue, class Before = Nothing>
void lanes_product(int64_t m, int64_t k, const T* a, int64_t a_row_stride, int64_t a_column_stride,
                   const T* b, T* c, const Epilogue& epilogue, const Before& before = {}) {
  constexpr int64_t kLanes = kVectors * kWidth<T>;
  constexpr int kRows = kVectors == 1 ? kTallRows : kBlockRows;
  if (m <= 0) return;
  const GemmArgs<T> g{m, kLanes, k, a, a_row_stride, a_column_stride, b, kLanes, c, kLanes};
  const int64_t blocks = (m + kRows - 1) / kRows;
  const int64_t larger = m % blocks;
  int64_t rows = m / blocks + 1, end = larger * rows, row = 0;
  for (int pass = 0; pass < 2; ++pass, --rows, end = m) {
    with_rows<kRows>(rows, [&](auto block_rows) HEADLOOM_INLINE_LAMBDA {
      for (; row < end; row += block_rows) {
        before();
        gemm_block<block_rows, kVectors>(g, row, 0, Index<kWidth<T>>{}, epilogue);
      }
    });
  }
}

// Lanes whose products with rows of keys are taken together: keys that none of them sees are left
// out, and they are rows enough to hide the latency of the additions.
template <class T, int kVectors>
inline constexpr int kSharing =
    kVectors* kWidth<T> >= 16 ? kVectors* kWidth<T> / 2 : kVectors* kWidth<T>;

// c[kRows, n] = epilogue(transpose(a[k, kRows]) b[k, n]): a is of a tile's lanes, b has rows of
// keys. before() is called for each panel of columns.
template <int kRows, class T, class Epilogue, class Before = Nothing>
HEADLOOM_INLINE void rows_product(int64_t n, int64_t k, const T* a, int64_t a_stride, const T* b,
                                  int64_t b_stride, T* c, const Epilogue& epilogue,
                                  const Before& before = {}) {
  constexpr int kFew = kRows < 4 ? kRows : 4;
  constexpr int kBlock = kRows % kBlockRows == 0 ? kBlockRows : kFew;
  static_assert(kRows % kBlock == 0);
  constexpr int64_t kPanel = kBlockVectors * kWidth<T>;
  const GemmArgs<T> g{kRows, n, k, a, 1, a_stride, b, b_stride, c, n};
  int64_t column = 0;
  for (; column + kPanel <= n; column += kPanel) {
    before();
    for (int64_t row = 0; row < kRows; row += kBlock) {
      gemm_block<kBlock, kBlockVectors>(g, row, column, Index<kWidth<T>>{}, epilogue);
    }
  }
  for (; column < n; column += kWidth<T>) {
    const int64_t left = n - column < kWidth<T> ? n - column : int64_t{kWidth<T>};
    for (int64_t row = 0; row < kRows; row += kBlock) {
      gemm_block<kBlock, 1>(g, row, column, left, epilogue);
    }
  }
}

// to[i] = factor(i) from[i / kRepeat], rows of `width` of which those of `from` are dense.
template <int kRepeat, class T, class To, class Factor>
HEADLOOM_INLINE void scale_rows(int64_t count, int64_t width, const T* from, To* to,
                                int64_t to_stride, const Factor& factor) {
  for (int64_t i = 0; i < count; ++i) {
    const Vec<T> factors = set1(factor(i));
    for_each_vector<T>(width, [&](int64_t d, auto lanes) HEADLOOM_INLINE_LAMBDA {
      store_at(to + i * to_stride + d, lanes,
               load_at(from + i / kRepeat * width + d, lanes) * factors);
    });
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA
