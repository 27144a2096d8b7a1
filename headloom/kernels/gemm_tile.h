#pragma once

#include "headloom/kernels/bf16_pairs.h"
#include "headloom/kernels/gemm.h"

// The matrix product of gemm.h for use inside kernel files, with an epilogue that sees each vector
// of the product while it is in a register.
//
// Factors are of the type T of the sums or, where the processor multiplies them (bf16_pairs.h), of
// bfloat16 in pairs along k. Then a_column_stride and b_row_stride are the way from one pair to the
// next, n counts pairs of a row of B, and an odd k ends with a pair whose second number is 0 in B.
namespace headloom::kernels::HEADLOOM_ISA {

// The register block: kBlockRows rows of kBlockVectors vectors. It has to hide the latency of the
// multiply-add (4 cycles, 2 a cycle: 8 sums) and leave registers for one broadcast and a row of B.
inline constexpr int kBlockVectors = 2;
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kBlockRows = 8;
#elif defined(HEADLOOM_ISA_avx2)
inline constexpr int kBlockRows = 6;
#else
inline constexpr int kBlockRows = 4;
#endif

// An epilogue turns a vector of the product, which begins at (row, column), into what is stored in
// C. `before` is what C holds, read only when kReadsC. Lanes beyond n are not stored. The call
// operator should be HEADLOOM_INLINE.
struct Assign {
  static constexpr bool kReadsC = false;
  template <class T>
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> product, Vec<T>, int64_t, int64_t) const {
    return product;
  }
};
struct Accumulate {
  static constexpr bool kReadsC = true;
  template <class T>
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> product, Vec<T> before, int64_t, int64_t) const {
    return before + product;
  }
};

// The product times a number.
template <class T>
struct Times {
  static constexpr bool kReadsC = false;
  Vec<T> factor;
  HEADLOOM_INLINE Vec<T> operator()(Vec<T> product, Vec<T>, int64_t, int64_t) const {
    return product * factor;
  }
};

// An element of A in all lanes. Where one vector of B alone is multiplied with it, the multiply-add
// may read it from memory itself; otherwise it has a register, or it would be read again and again.
template <int kVectors, class M>
HEADLOOM_INLINE auto element_of(const M* p) {
  if constexpr (kVectors == 1 && kGroup<M> == 1) {
    return set1(*p);
  } else {
    return broadcast_group(p);
  }
}

// kRows x (kVectors * kWidth) elements of C from (row, column) on. `count`: the lanes in use of
// each vector, Index<kWidth> when all are.
template <int kRows, int kVectors, class T, class M, class Count, class Epilogue>
HEADLOOM_INLINE void gemm_block(const GemmArgs<T, M>& g, int64_t row, int64_t column, Count count,
                                const Epilogue& epilogue) {
  Vec<T> sum[kRows][kVectors];
  unroll<kRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA { sum[i][j] = zero<T>(); });
  });
  const M* a = g.a + row * g.a_row_stride;
  const M* b = g.b + column * kGroup<M>;
  const auto step = [&](const auto& element) HEADLOOM_INLINE_LAMBDA {
    decltype(load_groups(b, count)) b_row[kVectors];
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      b_row[j] = load_groups(b + j * kWidth<T> * kGroup<M>, count);
    });
    unroll<kRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
      const auto a_element = element(a + i * g.a_row_stride);
      unroll<kVectors>(
          [&](auto j) HEADLOOM_INLINE_LAMBDA { sum[i][j] = fma(a_element, b_row[j], sum[i][j]); });
    });
  };
  for (int64_t k = kGroup<M>; k <= g.k; k += kGroup<M>) {
    step([](const M* p) HEADLOOM_INLINE_LAMBDA { return element_of<kVectors>(p); });
    a += g.a_column_stride;
    b += g.b_row_stride;
  }
  if constexpr (kGroup<M> == 2) {
    if (g.k % 2 != 0) step([](const M* p) HEADLOOM_INLINE_LAMBDA { return broadcast_last(p); });
  }
  unroll<kRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    unroll<kVectors>([&](auto j) HEADLOOM_INLINE_LAMBDA {
      T* c = g.c + (row + i) * g.c_row_stride + column + j * kWidth<T>;
      Vec<T> before = zero<T>();
      if constexpr (Epilogue::kReadsC) {
        before = load_at(c, count);
      }
      store_at(c, count, epilogue(sum[i][j], before, row + i, column + j * kWidth<T>));
    });
  });
}

// Calls body(Index<rows>{}), 1 <= rows <= kLimit.
template <int kLimit, class Body>
HEADLOOM_INLINE void with_rows(int64_t rows, const Body& body) {
  if constexpr (kLimit > 0) {
    if (rows == kLimit) {
      body(Index<kLimit>{});
    } else {
      with_rows<kLimit - 1>(rows, body);
    }
  }
}

// All rows of a panel of columns. Rows are dealt out evenly (9 as 5 + 4, not 8 + 1): a block with
// few rows cannot hide the latency of its additions.
template <int kVectors, class T, class M, class Count, class Epilogue>
HEADLOOM_INLINE void gemm_panel(const GemmArgs<T, M>& g, int64_t column, Count count,
                                const Epilogue& epilogue) {
  const int64_t blocks = (g.m + kBlockRows - 1) / kBlockRows;
  const int64_t larger = g.m % blocks;
  int64_t rows = g.m / blocks + 1, end = larger * rows, row = 0;
  for (int pass = 0; pass < 2; ++pass, --rows, end = g.m) {
    with_rows<kBlockRows>(rows, [&](auto block_rows) HEADLOOM_INLINE_LAMBDA {
      for (; row < end; row += block_rows) {
        gemm_block<block_rows, kVectors>(g, row, column, count, epilogue);
      }
    });
  }
}

// C = epilogue(A B). g.accumulate is not looked at: choose Assign or Accumulate.
template <class T, class M, class Epilogue>
void gemm_tile(const GemmArgs<T, M>& g, const Epilogue& epilogue) {
  constexpr int64_t kPanel = kBlockVectors * kWidth<T>;
  if (g.m <= 0) {
    return;
  }
  int64_t column = 0;
  for (; column + kPanel <= g.n; column += kPanel) {
    gemm_panel<kBlockVectors>(g, column, Index<kWidth<T>>{}, epilogue);
  }
  for (; column < g.n; column += kWidth<T>) {
    const int64_t left = g.n - column;
    gemm_panel<1>(g, column, left < kWidth<T> ? left : int64_t{kWidth<T>}, epilogue);
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA
