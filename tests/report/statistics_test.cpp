#include "headloom/report/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "headloom/base/check.h"

namespace headloom::report {
namespace {

struct Known {
  double probability, degrees, quantile;
};

class StudentT : public testing::TestWithParam<Known> {};

TEST_P(StudentT, QuantileIsTheTabulatedOne) {
  const Known known = GetParam();
  const double tolerance = 1e-9 * std::max(1.0, std::abs(known.quantile));
  EXPECT_NEAR(student_t_quantile(known.probability, known.degrees), known.quantile, tolerance);
  EXPECT_NEAR(student_t_quantile(1.0 - known.probability, known.degrees), -known.quantile,
              1e-6 * std::max(1.0, std::abs(known.quantile)));
}

// One and two degrees have closed forms: tan(pi (p - 1/2)) and (2p - 1) / sqrt(2 p (1 - p)).
INSTANTIATE_TEST_SUITE_P(
    Table, StudentT,
    testing::Values(Known{0.975, 1, std::tan(M_PI * 0.475)}, Known{0.9, 1, std::tan(M_PI * 0.4)},
                    Known{0.975, 2, 0.95 / std::sqrt(2 * 0.975 * 0.025)},
                    Known{0.6, 2, 0.2 / std::sqrt(2 * 0.6 * 0.4)},
                    Known{0.975, 3, 3.182446305284263}, Known{0.975, 4, 2.7764451051977987},
                    Known{0.995, 9, 3.2498355440153697}, Known{0.975, 30, 2.0422724563012373},
                    Known{0.95, 100, 1.6602343260853425}, Known{0.975, 1e7, 1.959964222}));

TEST(StudentTQuantile, IsZeroAtOneHalf) {
  EXPECT_NEAR(student_t_quantile(0.5, 5), 0.0, 1e-12);
}

TEST(StudentTQuantile, RefusesWhatHasNoQuantile) {
  EXPECT_THROW(student_t_quantile(1.0, 5), Error);
  EXPECT_THROW(student_t_quantile(0.0, 5), Error);
  EXPECT_THROW(student_t_quantile(0.9, 0), Error);
}

TEST(EstimateMean, GivesMeanAndInterval) {
  const Estimate estimate = estimate_mean({1.0, 2.0, 3.0, 4.0});
  EXPECT_DOUBLE_EQ(estimate.mean, 2.5);
  // t(0.975, 3) * sqrt(5/3) / 2
  EXPECT_NEAR(estimate.half_width, 3.182446305284263 * std::sqrt(5.0 / 3.0) / 2.0, 1e-9);
  EXPECT_EQ(estimate.count, 4u);
}

TEST(EstimateMean, HasNoIntervalBelowTwoSamples) {
  EXPECT_EQ(estimate_mean({7.0}).mean, 7.0);
  EXPECT_TRUE(std::isnan(estimate_mean({7.0}).half_width));
  EXPECT_TRUE(std::isnan(estimate_mean({}).mean));
}

TEST(EstimateDifference, DropsWhatPairsShare) {
  const Estimate estimate = estimate_difference({10.5, 20.5, 90.5}, {10.0, 20.0, 90.0});
  EXPECT_DOUBLE_EQ(estimate.mean, 0.5);
  EXPECT_DOUBLE_EQ(estimate.half_width, 0.0);
  EXPECT_LT(estimate_difference({1.0, 2.0}, {1.5, 3.0}).mean, 0.0);
}

TEST(EstimateDifference, RefusesUnequalNumbers) {
  EXPECT_THROW(estimate_difference({1.0}, {1.0, 2.0}), Error);
}

TEST(Median, IsTheMiddleValueOrTheMeanOfTwo) {
  EXPECT_EQ(median({5.0, 1.0, 3.0}), 3.0);
  EXPECT_EQ(median({4.0, 1.0, 3.0, 2.0}), 2.5);
  EXPECT_TRUE(std::isnan(median({})));
}

}  // namespace
}  // namespace headloom::report
