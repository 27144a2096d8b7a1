#pragma once

#include "headloom/kernels/exp.h"

// Logarithms in the lanes.
namespace headloom::kernels::HEADLOOM_ISA {

template <class T>
struct LogConstants;

// 2 / (ln(2) (2 i + 1)), the coefficients of log2((1 + t) / (1 - t)) in odd powers of t, the
// highest first: as many as |t| <= 0.172 needs.
template <>
struct LogConstants<float> {
  static constexpr int32_t kSqrtHalf = 0x3f3504f3;
  static constexpr float kSeries[] = {0x1.484b14p-2f, 0x1.a61762p-2f, 0x1.2776c6p-1f,
                                      0x1.ec709ep-1f, 0x1.715476p1f};
};
template <>
struct LogConstants<double> {
  static constexpr int64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kSeries[] = {
      0x1.00ecd7e080215p-3, 0x1.1964ec6fc9491p-3, 0x1.3703c1f4d0ffep-3, 0x1.5b9ac9b743f0dp-3,
      0x1.89f3b1694cffep-3, 0x1.c68f568d31760p-3, 0x1.0c9a84994022dp-2, 0x1.484b13d7c02a9p-2,
      0x1.a61762a7aded9p-2, 0x1.2776c50ef9bfep-1, 0x1.ec709dc3a03fdp-1, 0x1.71547652b82fep1};
};

// log2(x) for x = 0 (-inf) and normal x > 0, with an absolute error of 2 eps beside that of
// rounding the result; NaN for NaN and infinity.
template <class T>
HEADLOOM_INLINE Vec<T> log2(Vec<T> x) {
  using Int = typename Lanes<T>::Int;
  constexpr int kBits = ExpConstants<T>::kFractionBits;
  const Int bits = (Int)x.native;
  // x = 2^exponent * m, m in [sqrt(1/2), sqrt(2))
  const Int exponent = (bits - LogConstants<T>::kSqrtHalf) >> kBits;
  const Vec<T> m = {(typename Vec<T>::Native)(bits - (exponent << kBits))};
  const Vec<T> whole = {__builtin_convertvector(exponent, typename Vec<T>::Native)};
  const Vec<T> t = (m - set1(T(1))) / (m + set1(T(1)));
  const Vec<T> result = fma(t, polynomial(t * t, LogConstants<T>::kSeries), whole);
  return select(x == zero<T>(), set1(-ExpConstants<T>::kInfinity), result + (x - x));
}

}  // namespace headloom::kernels::HEADLOOM_ISA
