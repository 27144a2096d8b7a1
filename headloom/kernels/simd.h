#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "headloom/base/inline.h"
#include "headloom/base/numeric.h"

// The one thin SIMD layer: a vector as wide as the instruction set that is being compiled for.
//
// Kernel files (*_cpu.cpp) are compiled once per instruction set. Two rules keep the copies apart:
//   - everything lives in headloom::kernels::HEADLOOM_ISA, or is HEADLOOM_INLINE;
//   - no function or class template of the standard library: no <algorithm>, <vector>, <cmath>. Its
//     instantiations would have the same name in every copy, and the linker keeps any one of them,
//     so that a processor without AVX-512 might run the one that was compiled for it.
// tests/repo/test_isa_symbols.py reads the objects and finds offenders.
#if !defined(HEADLOOM_ISA)
#error "simd.h belongs in kernel files (*_cpu.cpp), which are compiled once per instruction set"
#endif

namespace headloom::kernels::HEADLOOM_ISA {

#if defined(HEADLOOM_ISA_avx512)
inline constexpr int kVectorBytes = 64;
#elif defined(HEADLOOM_ISA_avx2)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

// The compiler's own vector types, and the integers of the same size.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Native __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t UInt __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Lanes<double> {
  typedef double Native __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Int __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t UInt __attribute__((vector_size(kVectorBytes)));
};

// kWidth lanes of float or double.
template <class T>
struct Vec {
  using Native = typename Lanes<T>::Native;
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
  Native native;
};

template <class T>
inline constexpr int kWidth = Vec<T>::kWidth;

// The bits of as many two-byte numbers as there are lanes of float.
typedef uint16_t HalfLanes __attribute__((vector_size(kVectorBytes / 2)));

// A compile-time loop counter.
template <int kValue>
struct Index {
  HEADLOOM_INLINE constexpr operator int() const { return kValue; }
};

template <class Body, int... kIndex>
HEADLOOM_INLINE void unroll_over(Body& body, std::integer_sequence<int, kIndex...>) {
  (body(Index<kIndex>{}), ...);
}

// body(Index<0>{}), ..., body(Index<kCount - 1>{}), written out. Pragmas that unroll leave arrays
// of vectors in memory; this keeps them in registers. Lambdas are to be HEADLOOM_INLINE_LAMBDA.
template <int kCount, class Body>
HEADLOOM_INLINE void unroll(Body&& body) {
  unroll_over(body, std::make_integer_sequence<int, kCount>{});
}

template <class T>
HEADLOOM_INLINE Vec<T> zero() {
  return {typename Vec<T>::Native{}};
}

template <class T, int... kLane>
HEADLOOM_INLINE Vec<T> set_lanes(T value, std::integer_sequence<int, kLane...>) {
  return {typename Vec<T>::Native{(static_cast<void>(kLane), value)...}};
}

template <class T>
HEADLOOM_INLINE Vec<T> set1(T value) {
  return set_lanes<T>(value, std::make_integer_sequence<int, kWidth<T>>{});
}

// *p in every lane, in a register of its own: left to itself the compiler repeats the load in each
// instruction that uses it, and the load ports become the limit.
template <class T>
HEADLOOM_INLINE Vec<T> broadcast(const T* p) {
  Vec<T> a = set1(*p);
#if defined(__x86_64__)
  asm("" : "+v"(a.native));
#endif
  return a;
}

template <class T>
HEADLOOM_INLINE Vec<T> operator+(Vec<T> a, Vec<T> b) {
  return {a.native + b.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return {a.native - b.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> operator-(Vec<T> a) {
  return {-a.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return {a.native * b.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return {a.native / b.native};
}

// Whole vectors at any address. The overloads for two-byte types, further down, convert; store
// rounds to nearest even.
HEADLOOM_INLINE Vec<float> load(const float* p) {
  Vec<float> a;
  __builtin_memcpy(&a.native, p, sizeof(a.native));
  return a;
}
HEADLOOM_INLINE Vec<double> load(const double* p) {
  Vec<double> a;
  __builtin_memcpy(&a.native, p, sizeof(a.native));
  return a;
}
HEADLOOM_INLINE void store(float* p, Vec<float> a) {
  __builtin_memcpy(p, &a.native, sizeof(a.native));
}
HEADLOOM_INLINE void store(double* p, Vec<double> a) {
  __builtin_memcpy(p, &a.native, sizeof(a.native));
}

#if !defined(HEADLOOM_ISA_avx512)
// All ones in the lanes where a comparison held.
template <class T>
struct Mask {
  typename Lanes<T>::Int native;
};

template <class T>
HEADLOOM_INLINE Mask<T> operator<(Vec<T> a, Vec<T> b) {
  return {a.native < b.native};
}
template <class T>
HEADLOOM_INLINE Mask<T> operator<=(Vec<T> a, Vec<T> b) {
  return {a.native <= b.native};
}
template <class T>
HEADLOOM_INLINE Mask<T> operator==(Vec<T> a, Vec<T> b) {
  return {a.native == b.native};
}
template <class T>
HEADLOOM_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  return {a.native & b.native};
}

// chosen where the mask holds, otherwise where it does not; what is not taken may be NaN.
template <class T>
HEADLOOM_INLINE Vec<T> select(Mask<T> mask, Vec<T> chosen, Vec<T> otherwise) {
  return {mask.native ? chosen.native : otherwise.native};
}

template <class T, int... kLane>
HEADLOOM_INLINE Mask<T> lanes_below(int64_t count, std::integer_sequence<int, kLane...>) {
  using Int = typename Lanes<T>::Int;
  using Lane = decltype(Int{}[0] + 0);
  const Int lane = {static_cast<Lane>(kLane)...};
  return {lane < static_cast<Lane>(count)};
}

// Lanes 0 to count - 1, 0 <= count <= kWidth.
template <class T>
HEADLOOM_INLINE Mask<T> first_lanes(int64_t count) {
  return lanes_below<T>(count, std::make_integer_sequence<int, kWidth<T>>{});
}
#endif

}  // namespace headloom::kernels::HEADLOOM_ISA

// Each adds, for float and double: fma(a, b, c) = a * b + c (one rounding where the processor has
// the instruction), fnma = c - a * b, max(a, b) and min(a, b) (b where either is NaN), sqrt(a),
// any(mask), load_partial(p, count) (zeros in the other lanes) and store_partial(p, count, a) for
// 0 <= count <= kWidth, which touch no byte beyond p + count, the four of them for BFloat16 and
// Half, keep_mask(p, count): the lanes whose byte p[i] is not zero, and multiply_even(a, b): the
// 64-bit products of every other 32-bit lane of unsigned integers, the first one on.
#if defined(HEADLOOM_ISA_avx512)
#include "headloom/kernels/simd_avx512.h"
#elif defined(HEADLOOM_ISA_avx2)
#include "headloom/kernels/simd_avx2.h"
#else
#include "headloom/kernels/simd_baseline.h"
#endif
#include "headloom/kernels/simd_common.h"
