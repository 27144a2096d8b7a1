#pragma once

// Part of simd.h: what is built from the operations of the other parts.
namespace headloom::kernels::HEADLOOM_ISA {

#if !defined(HEADLOOM_ISA_avx512)
template <class T>
HEADLOOM_INLINE Mask<T> keep_mask(const uint8_t* p, int64_t count) {
  typename Lanes<T>::Int keep = {};
  for (int i = 0; i < kWidth<T>; ++i) {
    if (i < count) {
      keep[i] = p[i] != 0 ? -1 : 0;
    }
  }
  return {keep};
}
#endif

// The tails of two-byte arrays go through a buffer: they are short and rare.
template <class Storage>
HEADLOOM_INLINE Vec<float> load_partial_narrow(const Storage* p, int64_t count) {
  Storage buffer[kWidth<float>];
  for (int i = 0; i < kWidth<float>; ++i) {
    buffer[i].bits = i < count ? p[i].bits : uint16_t{0};
  }
  return load(buffer);
}
template <class Storage>
HEADLOOM_INLINE void store_partial_narrow(Storage* p, int64_t count, Vec<float> a) {
  Storage buffer[kWidth<float>];
  store(buffer, a);
  for (int i = 0; i < kWidth<float>; ++i) {
    if (i < count) {
      p[i] = buffer[i];
    }
  }
}
HEADLOOM_INLINE Vec<float> load_partial(const BFloat16* p, int64_t count) {
  return load_partial_narrow(p, count);
}
HEADLOOM_INLINE Vec<float> load_partial(const Half* p, int64_t count) {
  return load_partial_narrow(p, count);
}
HEADLOOM_INLINE void store_partial(BFloat16* p, int64_t count, Vec<float> a) {
  store_partial_narrow(p, count, a);
}
HEADLOOM_INLINE void store_partial(Half* p, int64_t count, Vec<float> a) {
  store_partial_narrow(p, count, a);
}

// Lane i becomes lane (i + kDistance) mod kWidth.
template <int kDistance, class T, int... kLane>
HEADLOOM_INLINE Vec<T> rotate(Vec<T> a, std::integer_sequence<int, kLane...>) {
  return {__builtin_shufflevector(a.native, a.native, ((kLane + kDistance) % kWidth<T>)...)};
}

// Combines all lanes in a tree of fixed shape.
template <int kDistance, class T, class Combine>
HEADLOOM_INLINE T fold_lanes(Vec<T> a, const Combine& combine) {
  if constexpr (kDistance == 0) {
    return a.native[0];
  } else {
    const Vec<T> other = rotate<kDistance>(a, std::make_integer_sequence<int, kWidth<T>>{});
    return fold_lanes<kDistance / 2>(combine(a, other), combine);
  }
}

template <class T>
HEADLOOM_INLINE T sum_lanes(Vec<T> a) {
  return fold_lanes<kWidth<T> / 2>(a,
                                   [](Vec<T> x, Vec<T> y) HEADLOOM_INLINE_LAMBDA { return x + y; });
}
template <class T>
HEADLOOM_INLINE T max_lanes(Vec<T> a) {
  return fold_lanes<kWidth<T> / 2>(
      a, [](Vec<T> x, Vec<T> y) HEADLOOM_INLINE_LAMBDA { return max(x, y); });
}

// Walks [0, length) in vectors: body(start, count) with count == kWidth except for a last, shorter
// one. `count` is an Index<kWidth> in the full steps, so that load_at and store_at choose at
// compile time.
template <class T, class Body>
HEADLOOM_INLINE void for_each_vector(int64_t length, const Body& body) {
  int64_t i = 0;
  for (; i + kWidth<T> <= length; i += kWidth<T>) {
    body(i, Index<kWidth<T>>{});
  }
  if (i < length) {
    body(i, length - i);
  }
}

template <class Storage, int kCount>
HEADLOOM_INLINE auto load_at(const Storage* p, Index<kCount>) {
  static_assert(kCount == kWidth<accumulator_t<Storage>>);
  return load(p);
}
template <class Storage>
HEADLOOM_INLINE auto load_at(const Storage* p, int64_t count) {
  return load_partial(p, count);
}
template <class Storage, int kCount, class T>
HEADLOOM_INLINE void store_at(Storage* p, Index<kCount>, Vec<T> a) {
  static_assert(kCount == kWidth<T>);
  store(p, a);
}
template <class Storage, class T>
HEADLOOM_INLINE void store_at(Storage* p, int64_t count, Vec<T> a) {
  store_partial(p, count, a);
}

}  // namespace headloom::kernels::HEADLOOM_ISA
