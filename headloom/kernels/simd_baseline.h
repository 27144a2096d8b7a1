#pragma once

// Part of simd.h: the same in the compiler's vector types alone, for every processor. Where the
// processor has a fused multiply-add in its base set (AArch64), the compiler contracts fma to it.
namespace headloom::kernels::HEADLOOM_ISA {

template <class T>
HEADLOOM_INLINE bool any(Mask<T> mask) {
  typename Lanes<T>::Int folded = mask.native;
  bool found = false;
  for (int i = 0; i < kWidth<T>; ++i) {
    found |= folded[i] != 0;
  }
  return found;
}

template <class T>
HEADLOOM_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {a.native * b.native + c.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {c.native - a.native * b.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return {a.native > b.native ? a.native : b.native};
}
template <class T>
HEADLOOM_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return {a.native < b.native ? a.native : b.native};
}

HEADLOOM_INLINE Vec<float> sqrt(Vec<float> a) {
  for (int i = 0; i < kWidth<float>; ++i) {
    a.native[i] = __builtin_sqrtf(a.native[i]);
  }
  return a;
}
HEADLOOM_INLINE Vec<double> sqrt(Vec<double> a) {
  for (int i = 0; i < kWidth<double>; ++i) {
    a.native[i] = __builtin_sqrt(a.native[i]);
  }
  return a;
}

template <class T>
HEADLOOM_INLINE Vec<T> load_lanes(const T* p, int64_t count) {
  Vec<T> a = zero<T>();
  for (int i = 0; i < kWidth<T>; ++i) {
    if (i < count) {
      a.native[i] = p[i];
    }
  }
  return a;
}
template <class T>
HEADLOOM_INLINE void store_lanes(T* p, int64_t count, Vec<T> a) {
  for (int i = 0; i < kWidth<T>; ++i) {
    if (i < count) {
      p[i] = a.native[i];
    }
  }
}
HEADLOOM_INLINE Vec<float> load_partial(const float* p, int64_t count) {
  return load_lanes(p, count);
}
HEADLOOM_INLINE Vec<double> load_partial(const double* p, int64_t count) {
  return load_lanes(p, count);
}
HEADLOOM_INLINE void store_partial(float* p, int64_t count, Vec<float> a) {
  store_lanes(p, count, a);
}
HEADLOOM_INLINE void store_partial(double* p, int64_t count, Vec<double> a) {
  store_lanes(p, count, a);
}

HEADLOOM_INLINE Lanes<double>::UInt multiply_even(Lanes<float>::UInt a, Lanes<float>::UInt b) {
  using Wide = Lanes<double>::UInt;
  return ((Wide)a & 0xffffffffu) * ((Wide)b & 0xffffffffu);
}

HEADLOOM_INLINE Lanes<float>::UInt widen(HalfLanes bits) {
  return __builtin_convertvector(bits, Lanes<float>::UInt);
}
HEADLOOM_INLINE Vec<float> half_lanes(HalfLanes bits) {
  Vec<float> a = zero<float>();
  for (int i = 0; i < kWidth<float>; ++i) {
    a.native[i] = detail::half_value(bits[i]);
  }
  return a;
}
HEADLOOM_INLINE HalfLanes half_bits(Vec<float> a) {
  HalfLanes bits = {};
  for (int i = 0; i < kWidth<float>; ++i) {
    bits[i] = detail::half_bits(a.native[i]);
  }
  return bits;
}

}  // namespace headloom::kernels::HEADLOOM_ISA
