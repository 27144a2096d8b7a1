#include "headloom/base/numeric.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace headloom {
namespace {

template <class T>
T with_bits(int bits) {
  T value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

template <class T>
class NumericTest : public ::testing::Test {};
using Types = ::testing::Types<BFloat16, Half>;
TYPED_TEST_SUITE(NumericTest, Types);

template <class T>
using Torch = std::conditional_t<std::is_same_v<T, Half>, c10::Half, c10::BFloat16>;
template <class T>
constexpr int kInfinityBits = std::is_same_v<T, Half> ? 0x7c00 : 0x7f80;

TYPED_TEST(NumericTest, IsLaidOutAsTorchTypes) {
  EXPECT_EQ(sizeof(TypeParam), sizeof(Torch<TypeParam>));
  EXPECT_EQ(alignof(TypeParam), alignof(Torch<TypeParam>));
  EXPECT_TRUE(std::is_trivially_copyable_v<TypeParam>);
  EXPECT_TRUE(std::is_trivially_default_constructible_v<TypeParam>);
}

TYPED_TEST(NumericTest, EveryValueGoesToFloatAndBack) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto value = with_bits<TypeParam>(bits);
    const float widened = static_cast<float>(value);
    const float torch =
        Torch<TypeParam>(static_cast<uint16_t>(bits), Torch<TypeParam>::from_bits());
    if (std::isnan(torch)) {
      EXPECT_TRUE(std::isnan(widened)) << bits;
      EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(widened)))) << bits;
      continue;
    }
    EXPECT_EQ(widened, torch) << bits;
    EXPECT_EQ(std::signbit(widened), std::signbit(torch)) << bits;
    EXPECT_EQ(TypeParam(widened).bits, bits);
  }
}

// Between each pair of neighbours: the midpoint goes to the even one, what lies beside it to the
// nearer one.
TYPED_TEST(NumericTest, RoundsToNearestEven) {
  constexpr float kLarge = std::numeric_limits<float>::infinity();
  for (int low = 0; low + 1 < kInfinityBits<TypeParam>; ++low) {
    const auto below = static_cast<float>(with_bits<TypeParam>(low));
    const auto above = static_cast<float>(with_bits<TypeParam>(low + 1));
    const float middle = below + (above - below) / 2;
    const int even = low % 2 == 0 ? low : low + 1;
    for (int sign : {0, 0x8000}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      ASSERT_EQ(TypeParam(s * middle).bits, even | sign) << middle;
      ASSERT_EQ(TypeParam(s * std::nextafter(middle, 0.0f)).bits, low | sign) << middle;
      ASSERT_EQ(TypeParam(s * std::nextafter(middle, kLarge)).bits, (low + 1) | sign) << middle;
    }
  }
}

TYPED_TEST(NumericTest, TooLargeBecomesInfinity) {
  const auto largest = static_cast<float>(with_bits<TypeParam>(kInfinityBits<TypeParam> - 1));
  const auto second = static_cast<float>(with_bits<TypeParam>(kInfinityBits<TypeParam> - 2));
  const float limit = largest + (largest - second) / 2;
  EXPECT_EQ(TypeParam(limit).bits, kInfinityBits<TypeParam>);
  EXPECT_EQ(TypeParam(std::nextafter(limit, 0.0f)).bits, kInfinityBits<TypeParam> - 1);
  for (float value : {std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(TypeParam(value).bits, kInfinityBits<TypeParam>);
    EXPECT_EQ(TypeParam(-value).bits, kInfinityBits<TypeParam> | 0x8000);
  }
}

TYPED_TEST(NumericTest, EveryNanStaysNan) {
  for (uint32_t payload : {0x00000001u, 0x00001fffu, 0x0000ffffu, 0x00400000u, 0x007fffffu}) {
    for (uint32_t sign : {0u, 0x80000000u}) {
      const float nan = detail::bits_as<float>(sign | 0x7f800000u | payload);
      EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(nan)))) << payload;
    }
  }
}

TEST(AccumulatorTest, IsFloatAtLeast) {
  EXPECT_TRUE((std::is_same_v<accumulator_t<double>, double>));
  EXPECT_TRUE((std::is_same_v<accumulator_t<float>, float>));
  EXPECT_TRUE((std::is_same_v<accumulator_t<BFloat16>, float>));
  EXPECT_TRUE((std::is_same_v<accumulator_t<Half>, float>));
}

}  // namespace
}  // namespace headloom
