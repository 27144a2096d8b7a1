#pragma once

#include <immintrin.h>

// Part of simd.h: what AVX-512 (F, BW, DQ, VL) does in instructions of its own.
namespace headloom::kernels::HEADLOOM_ISA {

template <class T>
struct Mask;
template <>
struct Mask<float> {
  __mmask16 native;
};
template <>
struct Mask<double> {
  __mmask8 native;
};

HEADLOOM_INLINE Mask<float> operator<(Vec<float> a, Vec<float> b) {
  return {_mm512_cmp_ps_mask(a.native, b.native, _CMP_LT_OQ)};
}
HEADLOOM_INLINE Mask<double> operator<(Vec<double> a, Vec<double> b) {
  return {_mm512_cmp_pd_mask(a.native, b.native, _CMP_LT_OQ)};
}
HEADLOOM_INLINE Mask<float> operator<=(Vec<float> a, Vec<float> b) {
  return {_mm512_cmp_ps_mask(a.native, b.native, _CMP_LE_OQ)};
}
HEADLOOM_INLINE Mask<double> operator<=(Vec<double> a, Vec<double> b) {
  return {_mm512_cmp_pd_mask(a.native, b.native, _CMP_LE_OQ)};
}
HEADLOOM_INLINE Mask<float> operator==(Vec<float> a, Vec<float> b) {
  return {_mm512_cmp_ps_mask(a.native, b.native, _CMP_EQ_OQ)};
}
HEADLOOM_INLINE Mask<double> operator==(Vec<double> a, Vec<double> b) {
  return {_mm512_cmp_pd_mask(a.native, b.native, _CMP_EQ_OQ)};
}

template <class T>
HEADLOOM_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  return {static_cast<decltype(a.native)>(a.native & b.native)};
}

HEADLOOM_INLINE Vec<float> select(Mask<float> mask, Vec<float> chosen, Vec<float> otherwise) {
  return {_mm512_mask_blend_ps(mask.native, otherwise.native, chosen.native)};
}
HEADLOOM_INLINE Vec<double> select(Mask<double> mask, Vec<double> chosen, Vec<double> otherwise) {
  return {_mm512_mask_blend_pd(mask.native, otherwise.native, chosen.native)};
}

template <class T>
HEADLOOM_INLINE bool any(Mask<T> mask) {
  return mask.native != 0;
}

template <class T>
HEADLOOM_INLINE Mask<T> first_lanes(int64_t count) {
  return {static_cast<decltype(Mask<T>{}.native)>(_bzhi_u32(~0u, static_cast<unsigned>(count)))};
}

HEADLOOM_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm512_fmadd_ps(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm512_fmadd_pd(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm512_fnmadd_ps(a.native, b.native, c.native)};
}
HEADLOOM_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm512_fnmadd_pd(a.native, b.native, c.native)};
}

HEADLOOM_INLINE Vec<float> max(Vec<float> a, Vec<float> b) {
  return {_mm512_max_ps(a.native, b.native)};
}
HEADLOOM_INLINE Vec<double> max(Vec<double> a, Vec<double> b) {
  return {_mm512_max_pd(a.native, b.native)};
}
HEADLOOM_INLINE Vec<float> min(Vec<float> a, Vec<float> b) {
  return {_mm512_min_ps(a.native, b.native)};
}
HEADLOOM_INLINE Vec<double> min(Vec<double> a, Vec<double> b) {
  return {_mm512_min_pd(a.native, b.native)};
}

HEADLOOM_INLINE Vec<float> sqrt(Vec<float> a) {
  return {_mm512_sqrt_ps(a.native)};
}
HEADLOOM_INLINE Vec<double> sqrt(Vec<double> a) {
  return {_mm512_sqrt_pd(a.native)};
}

HEADLOOM_INLINE Vec<float> load_partial(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes<float>(count).native, p)};
}
HEADLOOM_INLINE Vec<double> load_partial(const double* p, int64_t count) {
  return {_mm512_maskz_loadu_pd(first_lanes<double>(count).native, p)};
}
HEADLOOM_INLINE void store_partial(float* p, int64_t count, Vec<float> a) {
  _mm512_mask_storeu_ps(p, first_lanes<float>(count).native, a.native);
}
HEADLOOM_INLINE void store_partial(double* p, int64_t count, Vec<double> a) {
  _mm512_mask_storeu_pd(p, first_lanes<double>(count).native, a.native);
}

HEADLOOM_INLINE Lanes<double>::UInt multiply_even(Lanes<float>::UInt a, Lanes<float>::UInt b) {
  // The form without a mask leaves a variable of GCC 12's header unset, and GCC warns of it.
  return (Lanes<double>::UInt)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
}

HEADLOOM_INLINE Lanes<float>::UInt widen(HalfLanes bits) {
  return (Lanes<float>::UInt)_mm512_cvtepu16_epi32((__m256i)bits);
}
HEADLOOM_INLINE Vec<float> half_lanes(HalfLanes bits) {
  return {_mm512_cvtph_ps((__m256i)bits)};
}
HEADLOOM_INLINE HalfLanes half_bits(Vec<float> a) {
  return (HalfLanes)_mm512_cvtps_ph(a.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
HEADLOOM_INLINE HalfLanes load_bits_partial(const void* p, int64_t count) {
  return (HalfLanes)_mm256_maskz_loadu_epi16(first_lanes<float>(count).native, p);
}
HEADLOOM_INLINE void store_bits_partial(void* p, int64_t count, HalfLanes bits) {
  _mm256_mask_storeu_epi16(p, first_lanes<float>(count).native, (__m256i)bits);
}

template <class T>
HEADLOOM_INLINE Mask<T> keep_mask(const uint8_t* p, int64_t count) {
  const __mmask16 wanted = static_cast<__mmask16>(_bzhi_u32(~0u, static_cast<unsigned>(count)));
  const __m128i bytes = _mm_maskz_loadu_epi8(wanted, p);
  return {static_cast<decltype(Mask<T>{}.native)>(_mm_test_epi8_mask(bytes, bytes))};
}

}  // namespace headloom::kernels::HEADLOOM_ISA
