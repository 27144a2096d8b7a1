#pragma once

#include <cstdint>

#include "headloom/base/inline.h"

// Storage types of two bytes, laid out as torch's at::BFloat16 and at::Half are, so that a pointer
// to the one may be read as a pointer to the other. They hold; arithmetic happens in float.
//
// Conversion from float rounds to nearest, ties to even; what is too large becomes infinity; NaN
// stays NaN (quiet, its payload unspecified); subnormal halves are exact. Conversion to float is
// exact.
namespace headloom {

namespace detail {

template <class To, class From>
HEADLOOM_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

HEADLOOM_INLINE uint16_t bfloat16_bits(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

HEADLOOM_INLINE uint16_t half_bits(float value) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  constexpr uint32_t kTooLarge = (127u + 16u) << 23;        // 2^16
  constexpr uint32_t kSmallestNormal = (127u - 14u) << 23;  // 2^-14
  const uint32_t sign = (bits_as<uint32_t>(value) >> 16) & 0x8000u;
  uint32_t bits = bits_as<uint32_t>(value) & 0x7fffffffu;
  if (bits >= kTooLarge) {
    return static_cast<uint16_t>(sign | (bits > kInfinity ? 0x7e00u : 0x7c00u));
  }
  if (bits < kSmallestNormal) {
    // The spacing of floats in [0.5, 1) is that of subnormal halves: the addition rounds for us.
    const float sum = bits_as<float>(bits) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_as<uint32_t>(sum) - bits_as<uint32_t>(0.5f)));
  }
  // Rebias the exponent (15 - 127, modulo 2^32) and round in one addition; a carry into the
  // exponent is what rounding up to the next power of two means.
  bits += ((15u - 127u) << 23) + 0xfffu + ((bits >> 13) & 1u);
  return static_cast<uint16_t>(sign | (bits >> 13));
}

HEADLOOM_INLINE float half_value(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return bits_as<float>(sign | bits_as<uint32_t>(magnitude));
  }
  const uint32_t rebiased = exponent == 0x1fu ? 0xffu : exponent + (127u - 15u);
  return bits_as<float>(sign | (rebiased << 23) | (fraction << 13));
}

}  // namespace detail

// The upper half of a float: 8 bits of exponent, 7 of fraction.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  HEADLOOM_INLINE explicit BFloat16(float value) : bits(detail::bfloat16_bits(value)) {}
  HEADLOOM_INLINE explicit operator float() const {
    return detail::bits_as<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// IEEE 754 binary16: 5 bits of exponent, 10 of fraction.
struct Half {
  uint16_t bits;

  Half() = default;
  HEADLOOM_INLINE explicit Half(float value) : bits(detail::half_bits(value)) {}
  HEADLOOM_INLINE explicit operator float() const { return detail::half_value(bits); }
};

static_assert(sizeof(BFloat16) == 2 && sizeof(Half) == 2);

// What a kernel adds up in: double for double, float for the rest.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using accumulator_t = typename Accumulator<T>::type;

}  // namespace headloom
