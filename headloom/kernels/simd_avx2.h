#pragma once

#include <immintrin.h>

// Part of simd.h: what AVX2, FMA and F16C do in instructions of their own.
namespace headloom::kernels::HEADLOOM_ISA {

HEADLOOM_INLINE bool any(Mask<float> mask) {
  return _mm256_movemask_ps(_mm256_castsi256_ps((__m256i)mask.native)) != 0;
}
HEADLOOM_INLINE bool any(Mask<double> mask) {
  return _mm256_movemask_pd(_mm256_castsi256_pd((__m256i)mask.native)) != 0;
}

HEADLOOM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm256_fmadd_ps(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm256_fmadd_pd(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm256_fnmadd_ps(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm256_fnmadd_pd(a.native, b.native, c.native)};
}

HEADLOOM_INLINE Vec<float> max(Vec<float> a, Vec<float> b) {
  return {_mm256_max_ps(a.native, b.native)};
}
HEADLOOM_INLINE Vec<double> max(Vec<double> a, Vec<double> b) {
  return {_mm256_max_pd(a.native, b.native)};
}
HEADLOOM_INLINE Vec<float> min(Vec<float> a, Vec<float> b) {
  return {_mm256_min_ps(a.native, b.native)};
}
HEADLOOM_INLINE Vec<double> min(Vec<double> a, Vec<double> b) {
  return {_mm256_min_pd(a.native, b.native)};
}

HEADLOOM_INLINE Vec<float> sqrt(Vec<float> a) {
  return {(Vec<float>::Native)_mm256_sqrt_ps((__m256)a.native)};
}
HEADLOOM_INLINE Vec<double> sqrt(Vec<double> a) {
  return {(Vec<double>::Native)_mm256_sqrt_pd((__m256d)a.native)};
}

HEADLOOM_INLINE Vec<float> load_partial(const float* p, int64_t count) {
  return {_mm256_maskload_ps(p, (__m256i)first_lanes<float>(count).native)};
}
HEADLOOM_INLINE Vec<double> load_partial(const double* p, int64_t count) {
  return {_mm256_maskload_pd(p, (__m256i)first_lanes<double>(count).native)};
}
HEADLOOM_INLINE void store_partial(float* p, int64_t count, Vec<float> a) {
  _mm256_maskstore_ps(p, (__m256i)first_lanes<float>(count).native, a.native);
}
HEADLOOM_INLINE void store_partial(double* p, int64_t count, Vec<double> a) {
  _mm256_maskstore_pd(p, (__m256i)first_lanes<double>(count).native, a.native);
}

HEADLOOM_INLINE Lanes<double>::UInt multiply_even(Lanes<float>::UInt a, Lanes<float>::UInt b) {
  return (Lanes<double>::UInt)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}

HEADLOOM_INLINE Lanes<float>::UInt widen(HalfLanes bits) {
  return (Lanes<float>::UInt)_mm256_cvtepu16_epi32((__m128i)bits);
}
HEADLOOM_INLINE Vec<float> half_lanes(HalfLanes bits) {
  return {_mm256_cvtph_ps((__m128i)bits)};
}
HEADLOOM_INLINE HalfLanes half_bits(Vec<float> a) {
  return (HalfLanes)_mm256_cvtps_ph(a.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

}  // namespace headloom::kernels::HEADLOOM_ISA
