#include "headloom/base/rng.h"

#include <gtest/gtest.h>

#include <cmath>

namespace headloom {
namespace {

void expect_words(const Philox4& found, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  EXPECT_EQ(found.word[0], a);
  EXPECT_EQ(found.word[1], b);
  EXPECT_EQ(found.word[2], c);
  EXPECT_EQ(found.word[3], d);
}

// The known answers that Random123 publishes for philox4x32-10.
TEST(Philox, KnownAnswers) {
  expect_words(philox4x32(0, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u);
  const uint64_t ones = ~uint64_t{0};
  expect_words(philox4x32(ones, ones, ones), 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu);
  expect_words(philox4x32(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu),
               0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u);
}

TEST(RandomWord, IsTheWordOfItsBlock) {
  const Philox4 block = philox4x32(42, 3);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(random_word(42, 12 + i), block.word[i]);
}

TEST(RandomWord, CountsBeyond32Bits) {
  const uint64_t far = uint64_t{1} << 40;
  EXPECT_EQ(random_word(1, far), philox4x32(1, far / 4).word[0]);
  EXPECT_NE(random_word(1, far), random_word(1, 0));
}

TEST(RandomUniform, FillsTheUnitInterval) {
  constexpr int kCount = 20000;
  double sum = 0, squares = 0, lowest = 1, highest = 0;
  for (int i = 0; i < kCount; ++i) {
    const double x = random_uniform(7, i);
    sum += x;
    squares += x * x;
    lowest = std::min(lowest, x);
    highest = std::max(highest, x);
  }
  EXPECT_GE(lowest, 0.0);
  EXPECT_LT(highest, 1.0);
  const double five_sigma = 5 * std::sqrt(1.0 / 12 / kCount);
  EXPECT_NEAR(sum / kCount, 0.5, five_sigma);
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kCount));
  EXPECT_LT(lowest, 0.01);
  EXPECT_GT(highest, 0.99);
}

TEST(Dropout, ThresholdIsTheShareOfAllWords) {
  EXPECT_EQ(drop_threshold(0.0), 0u);
  EXPECT_EQ(drop_threshold(0.5), uint64_t{1} << 31);
  EXPECT_EQ(drop_threshold(0.25), uint64_t{1} << 30);
}

TEST(Dropout, ProbabilityZeroKeepsAll) {
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_TRUE(dropout_keeps(3, i, drop_threshold(0.0)));
}

TEST(Dropout, KeepsItsShareAndMoreWithLessDropout) {
  constexpr int kCount = 20000;
  int kept = 0;
  for (int i = 0; i < kCount; ++i) {
    const bool at_low = dropout_keeps(9, i, drop_threshold(0.1));
    const bool at_high = dropout_keeps(9, i, drop_threshold(0.3));
    EXPECT_TRUE(at_low || !at_high);
    kept += at_high;
  }
  EXPECT_NEAR(static_cast<double>(kept) / kCount, 0.7, 5 * std::sqrt(0.21 / kCount));
}

}  // namespace
}  // namespace headloom
