#pragma once

#include "headloom/kernels/simd.h"

// Exponentials in the lanes. Largest relative errors, rounding included, of normal results:
//
//             float     double
//   exp2(x)   2.0e-7    3e-16
//   exp(x)    1.0e-7    3e-16    reduced by ln 2 in two parts: slower
//
// exp2 is for softmaxes, log2(e) folded into a factor that is multiplied in anyway (a query, a
// mixing matrix). Do not write exp(x) as exp2(x * log2e): the product's rounding grows with
// |x|, 3.7e-6 at 80.
//
// exp2(0) = exp(0) = 1 exactly; +inf and overflow give +inf; NaN gives NaN; -inf gives 0. A result
// below the smallest normal number is rounded to a subnormal (AVX-512) or to 0 (others).
namespace headloom::kernels::HEADLOOM_ISA {

template <class T>
struct ExpConstants;

// Polynomials: minimax of the relative error by Remez's exchange, the leading terms held at 1
// (exp2) or 1 + r (exp) so that 0 maps to 1. Highest power first.
template <>
struct ExpConstants<float> {
  using UInt = uint32_t;
  static constexpr int kFractionBits = 23;
  static constexpr float kRounding =
      0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  // 2^f, |f| <= 1/2: 9.2e-8.
  static constexpr float kExp2[] = {0x1.5bb9fep-10f, 0x1.3cea9ep-7f, 0x1.c6b754p-5f,
                                    0x1.ebf9bcp-3f,  0x1.62e42ap-1f, 1.0f};
  // (e^r - 1 - r) / r^2, |r| <= ln(2)/2: 3.1e-9.
  static constexpr float kExp[] = {0x1.6a2434p-10f, 0x1.1239e2p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f,
                                   0x1.fffffcp-2f};
  static constexpr float kLog2E = 0x1.715476p0f;
  // ln 2 in two parts: the first has so few digits that its product with any exponent is exact,
  // with or without a fused multiply-add.
  static constexpr float kLn2High = 0x1.62e400p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kExp2Low = -126.0f, kExp2High = 128.0f;
  static constexpr float kExpLow = -0x1.5d589ep6f, kExpHigh = 0x1.62e430p6f;
  static constexpr float kInfinity = __builtin_inff();
};

template <>
struct ExpConstants<double> {
  using UInt = uint64_t;
  static constexpr int kFractionBits = 52;
  static constexpr double kRounding = 0x1.8p52;
  // 3.4e-18.
  static constexpr double kExp2[] = {
      0x1.e79ba4fd7c072p-32, 0x1.e61b4f5140c51p-28, 0x1.b5267ceb0ed89p-24, 0x1.62bfc79d75aa1p-20,
      0x1.ffcbfba97c144p-17, 0x1.4309130ed8bcdp-13, 0x1.5d87fe78cd6ddp-10, 0x1.3b2ab6fba011ap-7,
      0x1.c6b08d7049fe8p-5,  0x1.ebfbdff82c5a4p-3,  0x1.62e42fefa39efp-1,  1.0};
  // 3.7e-18.
  static constexpr double kExp[] = {
      0x1.ad7f6f0e24922p-26, 0x1.28ad72cd4ab37p-22, 0x1.71df255235e0bp-19, 0x1.a0199a0c66195p-16,
      0x1.a01a012a57b5ep-13, 0x1.6c16c1842a126p-10, 0x1.1111111127be5p-7,  0x1.555555555087cp-5,
      0x1.55555555554fap-3,  0x1.000000000000ap-1};
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kExp2Low = -1022.0, kExp2High = 1024.0;
  static constexpr double kExpLow = -0x1.6232bdd7abcd2p9, kExpHigh = 0x1.62e42fefa39f0p9;
  static constexpr double kInfinity = __builtin_inf();
};

// Horner's rule, highest power first.
template <class T, int kCount>
HEADLOOM_INLINE Vec<T> polynomial(Vec<T> x, const T (&coefficients)[kCount]) {
  Vec<T> sum = set1(coefficients[0]);
  unroll<kCount - 1>([&](auto i)
                         HEADLOOM_INLINE_LAMBDA { sum = fma(sum, x, set1(coefficients[i + 1])); });
  return sum;
}

#if defined(HEADLOOM_ISA_avx512)
// The nearest whole number, and p * 2^whole with every special case in hardware: p may be NaN when
// whole is infinite.
template <class T>
struct Exponent {
  Vec<T> whole;
};
HEADLOOM_INLINE Exponent<float> nearest_whole(Vec<float> x) {
  return {{_mm512_roundscale_ps(x.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}};
}
HEADLOOM_INLINE Exponent<double> nearest_whole(Vec<double> x) {
  return {{_mm512_roundscale_pd(x.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}};
}
HEADLOOM_INLINE Vec<float> scale(Vec<float> p, Exponent<float> exponent) {
  return {_mm512_scalef_ps(p.native, exponent.whole.native)};
}
HEADLOOM_INLINE Vec<double> scale(Vec<double> p, Exponent<double> exponent) {
  return {_mm512_scalef_pd(p.native, exponent.whole.native)};
}
// Nothing to do for exp2, whose reduction is exact.
template <class T>
HEADLOOM_INLINE Vec<T> mend(Vec<T>, Vec<T> result, T, T) {
  return result;
}
// Beyond these bounds exp is 0 or infinite all the same, and within them its reduction is sound.
// Infinities are cut to finite numbers; NaN passes.
template <class T>
HEADLOOM_INLINE Vec<T> bound_exp(Vec<T> x) {
  using C = ExpConstants<T>;
  return min(set1(C::kExpHigh * T(1.125)), max(set1(C::kExpLow * T(1.25)), x));
}
#else
// The nearest whole number is also kept in the low bits of `shifted`, from where an integer
// addition puts it into the exponent field of p, p in [0.7, 1.5]. Good while the result is a normal
// number; mend replaces the rest.
template <class T>
struct Exponent {
  Vec<T> whole, shifted;
};
template <class T>
HEADLOOM_INLINE Exponent<T> nearest_whole(Vec<T> x) {
  const Vec<T> shifted = x + set1(ExpConstants<T>::kRounding);
  return {shifted - set1(ExpConstants<T>::kRounding), shifted};
}
template <class T>
HEADLOOM_INLINE Vec<T> scale(Vec<T> p, Exponent<T> exponent) {
  using UInt = typename Lanes<T>::UInt;
  const UInt added = (UInt)exponent.shifted.native << ExpConstants<T>::kFractionBits;
  return {(typename Vec<T>::Native)((UInt)p.native + added)};
}
// x + inf is inf for what is too large and NaN for NaN, which compares false as well.
template <class T>
HEADLOOM_INLINE Vec<T> mend(Vec<T> x, Vec<T> result, T low, T high) {
  const Vec<T> above_zero = select(set1(low) <= x, result, zero<T>());
  return select(x < set1(high), above_zero, x + set1(ExpConstants<T>::kInfinity));
}
template <class T>
HEADLOOM_INLINE Vec<T> bound_exp(Vec<T> x) {
  return x;
}
#endif

// 2^x.
template <class T>
HEADLOOM_INLINE Vec<T> exp2(Vec<T> x) {
  using C = ExpConstants<T>;
  const Exponent<T> exponent = nearest_whole(x);
  const Vec<T> p = polynomial(x - exponent.whole, C::kExp2);
  return mend(x, scale(p, exponent), C::kExp2Low, C::kExp2High);
}

// e^x.
template <class T>
HEADLOOM_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  x = bound_exp(x);
  const Exponent<T> exponent = nearest_whole(x * set1(C::kLog2E));
  const Vec<T> r =
      fnma(exponent.whole, set1(C::kLn2Low), fnma(exponent.whole, set1(C::kLn2High), x));
  const Vec<T> p = fma(r * r, polynomial(r, C::kExp), r) + set1(T(1));
  return mend(x, scale(p, exponent), C::kExpLow, C::kExpHigh);
}

}  // namespace headloom::kernels::HEADLOOM_ISA
