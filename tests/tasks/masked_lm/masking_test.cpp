#include "headloom/tasks/masked_lm/masking.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "tests/support/closeness.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::masked_lm {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMask = 4, kTokens = 100;

// Tokens 0 to 4 are special.
Masking masking(double probability = 0.15) {
  std::vector<bool> ordinary(kTokens, true);
  std::fill(ordinary.begin(), ordinary.begin() + 5, false);
  return {ordinary, kMask, probability};
}

struct Row {
  std::vector<int64_t> original, tokens, targets;
};

Row masked(const Masking& masking, uint64_t index, int64_t length = 1'000) {
  Row row;
  for (int64_t i = 0; i < length; ++i) row.original.push_back((i * 37 + 11) % kTokens);
  row.tokens = row.original;
  row.targets.assign(row.original.size(), 7);
  RandomStream stream(1, Purpose::kTrainingMask, index);
  masking.apply(stream, row.tokens.data(), row.targets.data(), length);
  return row;
}

TEST(Masking, ChoosesAndCorruptsAsPublished) {
  const Masking rule = masking();
  std::map<std::string, double> counts;
  for (uint64_t index = 0; index < 200; ++index) {
    const Row row = masked(rule, index);
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const bool special = row.original[i] < 5;
      if (row.targets[i] == kNotPredicted) {
        EXPECT_EQ(row.tokens[i], row.original[i]);
        counts["ordinary"] += !special;
        continue;
      }
      ASSERT_FALSE(special) << "a special token was chosen";
      ASSERT_EQ(row.targets[i], row.original[i]);
      ++counts["ordinary"];
      ++counts["chosen"];
      if (row.tokens[i] == kMask) {
        ++counts["masked"];
      } else if (row.tokens[i] == row.original[i]) {
        ++counts["kept"];
      } else {
        ASSERT_GE(row.tokens[i], 5) << "replaced by a special token";
        ++counts["replaced"];
      }
    }
  }
  const auto expect_share = [&](const char* part, const char* whole, double share) {
    const double deviation = std::sqrt(counts[whole] * share * (1 - share));
    EXPECT_NEAR(counts[part], counts[whole] * share, headloom::testing::sigmas() * deviation)
        << part;
  };
  expect_share("chosen", "ordinary", 0.15);
  expect_share("masked", "chosen", 0.8);
  // One of the 95 ordinary tokens that are drawn is the original.
  expect_share("kept", "chosen", 0.1 + 0.1 / 95);
  expect_share("replaced", "chosen", 0.1 - 0.1 / 95);
}

TEST(Masking, IsAFunctionOfTheStream) {
  const Masking rule = masking();
  EXPECT_EQ(masked(rule, 3).tokens, masked(rule, 3).tokens);
  EXPECT_NE(masked(rule, 3).targets, masked(rule, 4).targets);
}

TEST(Masking, PredictsAtLeastOneTokenOfARow) {
  const Masking rule = masking(1e-6);
  for (uint64_t index = 0; index < 20; ++index) {
    const Row row = masked(rule, index, 30);
    EXPECT_EQ(std::count(row.targets.begin(), row.targets.end(), kNotPredicted), 29);
  }
}

TEST(Masking, LeavesRowsOfSpecialTokensAlone) {
  std::vector<int64_t> tokens{0, 1, 2}, targets(3);
  RandomStream stream(1, Purpose::kTrainingMask, 0);
  masking(1.0).apply(stream, tokens.data(), targets.data(), 3);
  EXPECT_EQ(tokens, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(targets, (std::vector<int64_t>(3, kNotPredicted)));
}

TEST(Masking, RefusesWhatCannotBe) {
  EXPECT_THAT(message_of([] { masking(0.0); }), HasSubstr("mask_probability above 0"));
  EXPECT_THAT(message_of([] { masking(1.1); }), HasSubstr("mask_probability above 0"));
  EXPECT_THAT(message_of([] {
                Masking({false, false}, 0, 0.1);
              }),
              HasSubstr("tokens that are not special; found none"));
}

}  // namespace
}  // namespace headloom::tasks::masked_lm
