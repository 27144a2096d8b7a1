#pragma once

#include "headloom/kernels/exp.h"

// Logarithms in the lanes.
namespace headloom::kernels::HEADLOOM_ISA {

// log2(x) for normal positive x; -inf for 0. Largest errors: 1.5e-7 of max(1, |log2 x|) in float,
// 4e-16 in double.
//
// x = m 2^e with m in [1/sqrt 2, sqrt 2); log2 m = 2 / ln 2 artanh t, t = (m - 1) / (m + 1), by its
// series: |t| < 0.172, so the first term left out is below half a unit in the last place.
template <class T>
HEADLOOM_INLINE Vec<T> log2(Vec<T> x) {
  using UInt = typename Lanes<T>::UInt;
  using Int = typename Lanes<T>::Int;
  constexpr int kBits = ExpConstants<T>::kFractionBits;
  constexpr int kTerms = sizeof(T) == 8 ? 12 : 5;
  const Vec<T> half_root = set1(static_cast<T>(0x1.6a09e667f3bcdp-1));
  // Exponents relative to that of 1 / sqrt 2, so that m is never far from 1.
  const UInt offset = (UInt)half_root.native;
  const Int exponent = (Int)((UInt)x.native - offset) >> kBits;
  const Vec<T> m = {(typename Vec<T>::Native)((UInt)x.native - ((UInt)exponent << kBits))};
  const Vec<T> one = set1(T(1));
  const Vec<T> t = (m - one) / (m + one);
  const Vec<T> square = t * t;
  Vec<T> series = set1(T(1) / T(2 * kTerms - 1));
  unroll<kTerms - 1>([&](auto i) HEADLOOM_INLINE_LAMBDA {
    series = fma(series, square, set1(T(1) / T(2 * (kTerms - 2 - i) + 1)));
  });
  const Vec<T> whole = {__builtin_convertvector(exponent, typename Vec<T>::Native)};
  const Vec<T> factor = set1(static_cast<T>(0x1.71547652b82fep1));
  const Vec<T> result = fma(t * factor, series, whole);
  return select(x == zero<T>(), set1(-ExpConstants<T>::kInfinity), result);
}

}  // namespace headloom::kernels::HEADLOOM_ISA
