#pragma once

#include "headloom/kernels/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// Part of the SIMD layer: what kernels whose operands exceed the caches tell the processor about
// memory.
namespace headloom::kernels::HEADLOOM_ISA {

inline constexpr int64_t kCacheLine = 64;

// Fetches the line of any address, valid or not, into the second-level cache.
HEADLOOM_INLINE void prefetch(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

// The lines of `bytes` from p on.
HEADLOOM_INLINE void prefetch_span(const void* p, int64_t bytes) {
  const char* line = static_cast<const char*>(p);
  for (int64_t i = 0; i < bytes; i += kCacheLine) {
    prefetch(line + i);
  }
}

// A store to a multiple of the stored vector's size that bypasses the caches: the memory is not
// read first. Ends with stream_fence(). An ordinary store where the processor has none.
HEADLOOM_INLINE void stream(float* p, Vec<float> a) {
#if defined(HEADLOOM_ISA_avx512)
  _mm512_stream_ps(p, a.native);
#elif defined(HEADLOOM_ISA_avx2)
  _mm256_stream_ps(p, a.native);
#elif defined(__SSE2__)
  _mm_stream_ps(p, a.native);
#else
  store(p, a);
#endif
}
HEADLOOM_INLINE void stream(double* p, Vec<double> a) {
#if defined(HEADLOOM_ISA_avx512)
  _mm512_stream_pd(p, a.native);
#elif defined(HEADLOOM_ISA_avx2)
  _mm256_stream_pd(p, a.native);
#elif defined(__SSE2__)
  _mm_stream_pd(p, a.native);
#else
  store(p, a);
#endif
}

template <class S>
HEADLOOM_INLINE void stream_bits(S* p, HalfLanes bits) {
#if defined(HEADLOOM_ISA_avx512)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)bits);
#elif defined(HEADLOOM_ISA_avx2)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)bits);
#else
  store_bits(p, bits);
#endif
}
HEADLOOM_INLINE void stream(BFloat16* p, Vec<float> a) {
  stream_bits(p, bfloat16_bits(a));
}
HEADLOOM_INLINE void stream(Half* p, Vec<float> a) {
  stream_bits(p, half_bits(a));
}

// Makes streamed stores visible to other threads in order; once, after the last of them.
HEADLOOM_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Whether rows from p on, `stride` elements apart, may be streamed.
template <class T>
HEADLOOM_INLINE bool can_stream(const T* p, int64_t stride) {
  const auto bits = reinterpret_cast<uintptr_t>(p) |
                    static_cast<uintptr_t>(stride * static_cast<int64_t>(sizeof(T)));
  return bits % (kWidth<accumulator_t<T>> * sizeof(T)) == 0;
}

}  // namespace headloom::kernels::HEADLOOM_ISA
