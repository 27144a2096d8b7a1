#pragma once

// Part of simd.h: what is built from the operations of the other parts.
namespace headloom::kernels::HEADLOOM_ISA {

HEADLOOM_INLINE HalfLanes load_bits(const void* p) {
  HalfLanes bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return bits;
}
HEADLOOM_INLINE void store_bits(void* p, HalfLanes bits) {
  __builtin_memcpy(p, &bits, sizeof(bits));
}

#if !defined(HEADLOOM_ISA_avx512)
HEADLOOM_INLINE HalfLanes load_bits_partial(const void* p, int64_t count) {
  HalfLanes bits = {};
  __builtin_memcpy(&bits, p, static_cast<size_t>(count) * sizeof(uint16_t));
  return bits;
}
HEADLOOM_INLINE void store_bits_partial(void* p, int64_t count, HalfLanes bits) {
  __builtin_memcpy(p, &bits, static_cast<size_t>(count) * sizeof(uint16_t));
}

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

// The upper and lower halves of the 64-bit products of 32-bit lanes.
HEADLOOM_INLINE void multiply_words(Lanes<float>::UInt a, uint32_t factor, Lanes<float>::UInt& high,
                                    Lanes<float>::UInt& low) {
  using Word = Lanes<float>::UInt;
  using Wide = Lanes<double>::UInt;
  constexpr uint64_t kLow = 0xffffffffu;
  const Word factors = Word{} + factor;
  const Wide even = multiply_even(a, factors), odd = multiply_even((Word)((Wide)a >> 32), factors);
  low = (Word)((even & kLow) | (odd << 32));
  high = (Word)((even >> 32) | (odd & ~kLow));
}

HEADLOOM_INLINE Vec<float> bfloat16_lanes(HalfLanes bits) {
  return {(Lanes<float>::Native)(widen(bits) << 16)};
}
HEADLOOM_INLINE HalfLanes bfloat16_bits(Vec<float> a) {
  using UInt = Lanes<float>::UInt;
  const UInt bits = (UInt)a.native;
  const UInt rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UInt quiet_nan = (bits >> 16) | 0x40u;
  return __builtin_convertvector(a.native == a.native ? rounded : quiet_nan, HalfLanes);
}

HEADLOOM_INLINE Vec<float> load(const BFloat16* p) {
  return bfloat16_lanes(load_bits(p));
}
HEADLOOM_INLINE Vec<float> load(const Half* p) {
  return half_lanes(load_bits(p));
}
HEADLOOM_INLINE Vec<float> load_partial(const BFloat16* p, int64_t count) {
  return bfloat16_lanes(load_bits_partial(p, count));
}
HEADLOOM_INLINE Vec<float> load_partial(const Half* p, int64_t count) {
  return half_lanes(load_bits_partial(p, count));
}
HEADLOOM_INLINE void store(BFloat16* p, Vec<float> a) {
  store_bits(p, bfloat16_bits(a));
}
HEADLOOM_INLINE void store(Half* p, Vec<float> a) {
  store_bits(p, half_bits(a));
}
HEADLOOM_INLINE void store_partial(BFloat16* p, int64_t count, Vec<float> a) {
  store_bits_partial(p, count, bfloat16_bits(a));
}
HEADLOOM_INLINE void store_partial(Half* p, int64_t count, Vec<float> a) {
  store_bits_partial(p, count, half_bits(a));
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
