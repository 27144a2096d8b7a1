#pragma once

#include "headloom/kernels/banded.h"

// The gradient of a banded product with respect to weights that all outputs share, lane by lane:
//
//   sums[k, :] += sum_i g[i, :] x[i + k, :]
namespace headloom::kernels::HEADLOOM_ISA {

// Rows of g that are held in registers while the rows of x go by.
inline constexpr int kGradientRows = 4;
// Sums held in registers at most.
#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kGradientTaps = 16;
#else
inline constexpr int kGradientTaps = 8;
#endif

// One vector of lanes; kTaps sums. `rows` is a multiple of kGradientRows.
template <int kTaps, class T>
HEADLOOM_INLINE void gradient_taps(const T* g, const T* x, int64_t rows, int64_t stride, T* sums) {
  Vec<T> sum[kTaps];
  unroll<kTaps>([&](auto k) HEADLOOM_INLINE_LAMBDA { sum[k] = load(sums + k * stride); });
  for (int64_t row = 0; row < rows; row += kGradientRows) {
    Vec<T> held[kGradientRows];
    unroll<kGradientRows>([&](auto i) HEADLOOM_INLINE_LAMBDA { held[i] = load(g + i * stride); });
    unroll<kTaps + kGradientRows - 1>([&](auto r) HEADLOOM_INLINE_LAMBDA {
      const Vec<T> read = load(x + r * stride);
      unroll<kGradientRows>([&](auto i) HEADLOOM_INLINE_LAMBDA {
        constexpr int k = r - i;
        if constexpr (k >= 0 && k < kTaps) {
          sum[k] = fma(held[i], read, sum[k]);
        }
      });
    });
    g += kGradientRows * stride;
    x += kGradientRows * stride;
  }
  unroll<kTaps>([&](auto k) HEADLOOM_INLINE_LAMBDA { store(sums + k * stride, sum[k]); });
}

// Sums come in groups of as many as are computed together; those beyond `taps` are of no use, and
// x may hold anything in the rows that only they read.
HEADLOOM_INLINE int64_t gradient_sums(int64_t taps) {
  return (taps + kGradientTaps - 1) / kGradientTaps * kGradientTaps;
}

// g [rows, width], x [rows + gradient_sums(taps) - 1, width], sums [gradient_sums(taps), width].
template <class T>
void banded_gradient(const T* g, const T* x, int64_t rows, int64_t taps, int64_t width, T* sums) {
  for (int64_t lane = 0; lane < width; lane += kWidth<T>) {
    for (int64_t k = 0; k < taps; k += kGradientTaps) {
      const T* from = x + k * width + lane;
      T* to = sums + k * width + lane;
      if (taps - k > 8) {
        gradient_taps<kGradientTaps>(g + lane, from, rows, width, to);
      } else if (taps - k > 4) {
        gradient_taps<8>(g + lane, from, rows, width, to);
      } else {
        gradient_taps<4>(g + lane, from, rows, width, to);
      }
    }
  }
}

}  // namespace headloom::kernels::HEADLOOM_ISA
