#pragma once

#include "headloom/kernels/transpose.h"

// What gemm_tile.h multiplies. Numbers are multiplied one by one in the accumulator's type, or,
// where the processor has an instruction for it, bfloat16 in pairs: each lane gets the sum of two
// products, exact but for the addition. Pairs follow the depth of the product. A row of the left
// operand has them side by side as it lies in memory; the right operand, and a left operand that is
// read by columns, are interleaved by the functions at the end of this file.
namespace headloom::kernels::HEADLOOM_ISA {

// The type in which S is multiplied.
template <class S>
struct Multiplied {
  using type = accumulator_t<S>;
};
#if defined(HEADLOOM_ISA_avx512bf16)
template <>
struct Multiplied<BFloat16> {
  using type = BFloat16;
};
#endif
template <class S>
using multiplied_t = typename Multiplied<S>::type;

// Steps of the depth in one multiply-add.
template <class M>
inline constexpr int kGroup = sizeof(M) == sizeof(BFloat16) ? 2 : 1;

// Elements of a row of `columns` groups: pairs fill whole vectors.
template <class M>
HEADLOOM_INLINE int64_t group_stride(int64_t columns) {
  constexpr int64_t kLanes = kWidth<accumulator_t<M>>;
  return kGroup<M> == 1 ? columns : (columns + kLanes - 1) / kLanes * kLanes * 2;
}
// Rows of groups in a depth.
template <class M>
HEADLOOM_INLINE int64_t group_rows(int64_t depth) {
  return (depth + kGroup<M> - 1) / kGroup<M>;
}

template <class T, class Count>
HEADLOOM_INLINE Vec<T> load_groups(const T* p, Count count) {
  return load_at(p, count);
}
template <class T>
HEADLOOM_INLINE Vec<T> broadcast_group(const T* p) {
  return broadcast(p);
}

#if defined(HEADLOOM_ISA_avx512bf16)

// A pair of bfloat16 in each lane.
struct PairLanes {
  __m512i native;
};

template <class Count>
HEADLOOM_INLINE PairLanes load_groups(const BFloat16* p, Count) {
  PairLanes pairs;
  __builtin_memcpy(&pairs.native, p, sizeof(pairs.native));
  return pairs;
}
HEADLOOM_INLINE PairLanes broadcast_bits(int32_t bits) {
  PairLanes pairs{_mm512_set1_epi32(bits)};
  asm("" : "+v"(pairs.native));
  return pairs;
}
HEADLOOM_INLINE PairLanes broadcast_group(const BFloat16* p) {
  int32_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return broadcast_bits(bits);
}
// The last number of an odd depth: touches nothing beyond it.
HEADLOOM_INLINE PairLanes broadcast_last(const BFloat16* p) {
  return broadcast_bits(p->bits);
}
HEADLOOM_INLINE Vec<float> fma(PairLanes a, PairLanes b, Vec<float> c) {
  return {_mm512_dpbf16_ps(c.native, (__m512bh)a.native, (__m512bh)b.native)};
}

HEADLOOM_INLINE void store_pairs(BFloat16* p, __m512i pairs) {
  _mm512_storeu_si512(p, pairs);
}
HEADLOOM_INLINE __m512i interleave(HalfLanes first, HalfLanes second) {
  return (__m512i)(widen(first) | (widen(second) << 16));
}
// The numbers of `first`, then those of `second`, rounded to nearest even.
HEADLOOM_INLINE __m512i round_both(Vec<float> first, Vec<float> second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second.native, first.native);
}
template <int... kLane>
HEADLOOM_INLINE __m512i interleave_halves(__m512i both, std::integer_sequence<int, kLane...>) {
  typedef uint16_t Shorts __attribute__((vector_size(64)));
  constexpr int kHalf = sizeof...(kLane) / 2;
  return (__m512i)__builtin_shufflevector((Shorts)both, (Shorts)both,
                                          (kLane % 2 * kHalf + kLane / 2)...);
}

// to[(i / 2), j] = the pair from[i, j], from[i + 1, j]; a missing last row counts as zeros. `to`
// has group_stride(columns) numbers a row; lanes beyond the columns get zeros.
HEADLOOM_INLINE void interleave_rows(const BFloat16* from, int64_t from_stride, int64_t rows,
                                     int64_t columns, BFloat16* to) {
  const int64_t to_stride = group_stride<BFloat16>(columns);
  for (int64_t i = 0; i < rows; i += 2, from += 2 * from_stride, to += to_stride) {
    for_each_vector<float>(columns, [&](int64_t j, auto some) HEADLOOM_INLINE_LAMBDA {
      const HalfLanes none = {};
      const HalfLanes first = load_bits_partial(from + j, some);
      const HalfLanes second =
          i + 1 < rows ? load_bits_partial(from + from_stride + j, some) : none;
      store_pairs(to + 2 * j, interleave(first, second));
    });
  }
}

// The same with float numbers, which are rounded; `columns` are whole vectors.
HEADLOOM_INLINE void interleave_rows(const float* from, int64_t from_stride, int64_t rows,
                                     int64_t columns, BFloat16* to) {
  for (int64_t i = 0; i < rows; i += 2, from += 2 * from_stride, to += 2 * columns) {
    for (int64_t j = 0; j < columns; j += kWidth<float>) {
      const Vec<float> second = i + 1 < rows ? load(from + from_stride + j) : zero<float>();
      store_pairs(to + 2 * j, interleave_halves(round_both(load(from + j), second),
                                                std::make_integer_sequence<int, 32>{}));
    }
  }
}

// to[i, j] = from[i, j], rounded; rows of `columns` numbers, pairs of whole vectors.
HEADLOOM_INLINE void round_rows(const float* from, int64_t rows, int64_t columns, BFloat16* to) {
  for (int64_t at = 0; at < rows * columns; at += 2 * kWidth<float>) {
    store_pairs(to + at, round_both(load(from + at), load(from + at + kWidth<float>)));
  }
}

// to[(j / 2), i] = the pair from[i, j], from[i, j + 1]; a missing last column counts as zeros. `to`
// has 2 * lanes numbers a row, whole vectors; lanes beyond `rows` get zeros.
inline void interleave_columns(const BFloat16* from, int64_t from_stride, int64_t rows,
                               int64_t columns, BFloat16* to, int64_t lanes) {
  constexpr int64_t kSquare = kWidth<float>;
  for (int64_t j = 0; j < columns; j += 2 * kSquare) {
    const auto left = static_cast<unsigned>(columns - j < 2 * kSquare ? columns - j : 2 * kSquare);
    const auto wanted = static_cast<__mmask32>(_bzhi_u32(~0u, left));
    for (int64_t i = 0; i < lanes; i += kSquare) {
      Vec<float> pairs[kSquare];
      unroll<kSquare>([&](auto r) HEADLOOM_INLINE_LAMBDA {
        const __mmask32 here = i + r < rows ? wanted : 0;
        pairs[r].native =
            _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(here, from + (i + r) * from_stride + j));
      });
      transpose(pairs);
      unroll<kSquare>([&](auto c) HEADLOOM_INLINE_LAMBDA {
        if (2 * c < static_cast<int>(left)) {
          store_pairs(to + (j / 2 + c) * 2 * lanes + 2 * i, _mm512_castps_si512(pairs[c].native));
        }
      });
    }
  }
}

#endif

}  // namespace headloom::kernels::HEADLOOM_ISA
