#include "headloom/report/axis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace headloom::report {
namespace {

std::vector<std::string> labels(const Axis& axis) {
  std::vector<std::string> all;
  for (const Tick& tick : axis.ticks()) all.push_back(tick.label);
  return all;
}

using Labels = std::vector<std::string>;

TEST(Axis, PutsTicksAtRoundValues) {
  EXPECT_EQ(labels(Axis({0.03, 0.98}, false, 5, true)),
            (Labels{"0", "0.2", "0.4", "0.6", "0.8", "1"}));
  EXPECT_EQ(labels(Axis({-12, 37}, false, 5, true)),
            (Labels{"-20", "-10", "0", "10", "20", "30", "40"}));
}

TEST(Axis, EndsOnTheValuesUnlessAskedForWholeTicks) {
  const Axis tight({1, 9}, false, 5, false), whole({1, 9}, false, 5, true);
  EXPECT_DOUBLE_EQ(tight.position(1), 0.0);
  EXPECT_DOUBLE_EQ(tight.position(9), 1.0);
  EXPECT_GT(whole.position(1), 0.0);
  EXPECT_EQ(labels(tight), (Labels{"2", "4", "6", "8"}));
}

TEST(Axis, ShortensLargeAndSmallNumbers) {
  EXPECT_EQ(labels(Axis({0, 40000}, false, 4, true)), (Labels{"0", "10k", "20k", "30k", "40k"}));
  EXPECT_EQ(labels(Axis({0, 1.5e6}, false, 3, true)), (Labels{"0", "0.5M", "1M", "1.5M"}));
  EXPECT_EQ(labels(Axis({0, 3e-7}, false, 3, true)), (Labels{"0", "1e-7", "2e-7", "3e-7"}));
  EXPECT_EQ(labels(Axis({0, 2e30}, false, 2, true)), (Labels{"0", "1e30", "2e30"}));
}

TEST(Axis, LabelsOfALogAxisArePowersOfTen) {
  EXPECT_EQ(labels(Axis({0.01, 100}, true, 5, true)), (Labels{"0.01", "0.1", "1", "10", "100"}));
  EXPECT_EQ(labels(Axis({0.3, 3}, true, 5, true)), (Labels{"0.5", "1", "2"}));
}

TEST(Axis, IsEvenInTheLogarithm) {
  const Axis axis({1, 10000}, true, 5, true);
  EXPECT_NEAR(axis.position(100), 0.5, 1e-12);
  EXPECT_NEAR(axis.position(1000) - axis.position(100), axis.position(100) - axis.position(10),
              1e-12);
}

TEST(Axis, LabelsANarrowLogAxis) {
  EXPECT_EQ(labels(Axis({1.2, 1.4}, true, 4, true)), (Labels{"1.2", "1.3", "1.4"}));
}

class AxisOfStrangeRanges : public testing::TestWithParam<std::tuple<std::vector<double>, bool>> {};

TEST_P(AxisOfStrangeRanges, HasDistinctTicksInsideAndFinitePositions) {
  const auto& [values, log] = GetParam();
  const Axis axis(values, log, 5, true);
  for (const double value : values) {
    EXPECT_GE(axis.position(value), -1e-9);
    EXPECT_LE(axis.position(value), 1.0 + 1e-9);
  }
  EXPECT_GE(axis.ticks().size(), 2u);
  EXPECT_LE(axis.ticks().size(), 20u);
  std::set<std::string> distinct;
  for (const Tick& tick : axis.ticks()) {
    EXPECT_TRUE(std::isfinite(tick.value));
    EXPECT_GE(axis.position(tick.value), -1e-6);
    EXPECT_LE(axis.position(tick.value), 1.0 + 1e-6);
    EXPECT_TRUE(distinct.insert(tick.label).second) << tick.label;
  }
}

constexpr double kMax = std::numeric_limits<double>::max();
INSTANTIATE_TEST_SUITE_P(
    Linear, AxisOfStrangeRanges,
    testing::Combine(testing::Values(std::vector<double>{}, std::vector<double>{0},
                                     std::vector<double>{5, 5, 5}, std::vector<double>{-3},
                                     std::vector<double>{1e-300}, std::vector<double>{kMax},
                                     std::vector<double>{-kMax, kMax},
                                     std::vector<double>{1e9, 1e9 + 1},
                                     std::vector<double>{1e9, 1e9 + 1e-6},
                                     std::vector<double>{-1e-9, 2e-9}),
                     testing::Values(false)));
INSTANTIATE_TEST_SUITE_P(
    Log, AxisOfStrangeRanges,
    testing::Combine(testing::Values(std::vector<double>{}, std::vector<double>{5},
                                     std::vector<double>{1e-300, 1e300},
                                     std::vector<double>{1, 1 + 1e-6},
                                     std::vector<double>{0.9, 1.1}, std::vector<double>{3, 70},
                                     std::vector<double>{1e307}),
                     testing::Values(true)));

}  // namespace
}  // namespace headloom::report
