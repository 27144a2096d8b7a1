#pragma once

#include <limits>

#include "headloom/base/numeric.h"

// How far a result may be from the exact one. The bounds are those of rounding-error analysis
// (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3), not chosen by hand.
namespace headloom::testing {

// The unit round-off of a floating-point type: half the distance from 1 to the next number.
template <class T>
constexpr double unit_roundoff() {
  return static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
}

template <>
constexpr double unit_roundoff<BFloat16>() {
  return 0x1p-8;
}
template <>
constexpr double unit_roundoff<Half>() {
  return 0x1p-11;
}

// The largest error of rounding `value` to a storage type, subnormal numbers included.
template <class T>
constexpr double rounding_bound(double value) {
  const double half_spacing = sizeof(T) == 8 ? 0x1p-1074 : sizeof(T) == 4 ? 0x1p-149 : 0x1p-25;
  return unit_roundoff<T>() * (value < 0 ? -value : value) + half_spacing;
}

// The error of a sum of `terms` products in any order, each rounded: `magnitude` is the sum of
// their absolute values. One more rounding is granted for what the sum is added to or multiplied
// by.
template <class T>
constexpr double gemm_bound(double terms, double magnitude) {
  const double relative = (terms + 1) * unit_roundoff<T>();
  return relative / (1 - relative) * magnitude + rounding_bound<T>(0);
}

}  // namespace headloom::testing
