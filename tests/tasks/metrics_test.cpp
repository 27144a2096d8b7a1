#include "headloom/tasks/metrics.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "headloom/base/check.h"
#include "tests/support/closeness.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

::testing::AssertionResult golden(double found, double expected) {
  const auto difference = testing::differs_from_golden(at::scalar_tensor(found, at::kDouble),
                                                       at::scalar_tensor(expected, at::kDouble));
  return difference ? ::testing::AssertionFailure() << *difference : ::testing::AssertionSuccess();
}

// Probabilities of two classes, the first the larger.
Tensor confident(const std::vector<double>& confidences) {
  const Tensor first = at::tensor(confidences, at::kDouble).unsqueeze(1);
  return at::cat({first, 1 - first}, 1);
}

TEST(Calibration, KnownErrors) {
  Totals totals;
  add_calibration(confident({.95, .85, .55, .65}), at::tensor({0, 1, 0, 0}, at::kLong), totals);
  EXPECT_TRUE(golden(expected_calibration_error(totals), 42.5));
  EXPECT_TRUE(golden(maximum_calibration_error(totals), 85.0));
}

TEST(Calibration, BatchesAddUpAndBinsHaveTheirBounds) {
  Totals whole, parts;
  const Tensor p = confident({1.0, 0.9, 0.7, 0.95}), y = at::tensor({0, 1, 0, 1}, at::kLong);
  add_calibration(p, y, whole);
  add_calibration(p.narrow(0, 0, 1), y.narrow(0, 0, 1), parts);
  add_calibration(p.narrow(0, 1, 3), y.narrow(0, 1, 3), parts);
  EXPECT_EQ(whole, parts);
  // 1 and 0.9 share the last bin, 0.7 is in the eighth.
  EXPECT_EQ(whole.at("calibration_count_9"), 3.0);
  EXPECT_EQ(whole.at("calibration_count_7"), 1.0);
  EXPECT_EQ(expected_calibration_error({}), 0.0);
}

TEST(Likelihood, OfKnownProbabilities) {
  EXPECT_TRUE(golden(negative_log_likelihood(confident({.5, .25}), at::tensor({0, 1}, at::kLong)),
                     -(std::log(.5) + std::log(.75)) / 2));
}

TEST(Entropy, SplitsIntoTwoParts) {
  // Two samples that are sure of different classes: all the uncertainty is between the samples.
  const Tensor samples = at::tensor({1., 0., 0., 1., .5, .5, .5, .5}, at::kDouble).view({2, 2, 2});
  const Tensor turned = samples.transpose(0, 1);  // example 0 changes its mind, example 1 does not
  EXPECT_TRUE(golden(predictive_entropy(turned)[1].item<double>(), std::log(2.)));
  const Tensor sure = at::tensor({1., 0., 0., 1.}, at::kDouble).view({2, 1, 2});
  EXPECT_TRUE(golden(mutual_information(sure)[0].item<double>(), std::log(2.)));
  const Tensor even = at::full({2, 1, 2}, .5, at::kDouble);
  EXPECT_TRUE(golden(predictive_entropy(even)[0].item<double>(), std::log(2.)));
  EXPECT_TRUE(golden(1.0 + mutual_information(even)[0].item<double>(), 1.0));
}

struct Samples {
  std::vector<double> x, y;
  Samples() {
    for (int i = 0; i < 20; ++i) {
      x.push_back(0.6 + 0.05 * std::sin(i));
      y.push_back(0.55 + 0.05 * std::cos(1.7 * i));
    }
  }
};

TEST(TTests, KnownValues) {
  const Samples s;
  const TTest paired = paired_t_test(s.x, s.y), welch = welch_t_test(s.x, s.y);
  EXPECT_TRUE(golden(paired.t, 4.1484957964));
  EXPECT_EQ(paired.degrees, 19.0);
  EXPECT_TRUE(golden(paired.p, 5.458423e-4));
  EXPECT_TRUE(golden(welch.t, 4.1709448326));
  EXPECT_TRUE(golden(welch.degrees, 37.95951823));
  EXPECT_TRUE(golden(welch.p, 1.697386e-4));
  EXPECT_TRUE(golden(two_sided_p(2.093024, 19.0), 0.0500000));
  EXPECT_EQ(two_sided_p(0.0, 5.0), 1.0);
}

TEST(TTests, WithoutVariance) {
  const std::vector<double> ones(5, 1.0), twos(5, 2.0);
  for (const auto& test : {paired_t_test, welch_t_test}) {
    EXPECT_EQ(test(ones, ones).p, 1.0);
    EXPECT_EQ(test(ones, twos).p, 0.0);
  }
  EXPECT_THROW(paired_t_test({1.0}, {2.0}), Error);
}

TEST(AccuracyVersusUncertainty, CountsWhatIsAsItShouldBe) {
  // Example 0: the classes are far apart; example 1: they change places from sample to sample.
  const Tensor samples = at::zeros({4, 2, 3}, at::kDouble);
  for (int64_t s = 0; s < 4; ++s) {
    samples[s][0][0] = 5.0 + 0.1 * static_cast<double>(s);
    samples[s][1][0] = s % 2 == 0 ? 1.0 : -1.0;
  }
  for (const auto certainty : {Certainty::kPairedLogits, Certainty::kWelchProbabilities}) {
    const auto score = [&](double first, double second) {
      return patch_accuracy_vs_uncertainty(samples, at::tensor({first, second}, at::kDouble),
                                           certainty);
    };
    EXPECT_EQ(score(1.0, 0.0), 1.0);
    EXPECT_EQ(score(0.0, 1.0), 0.0);
    EXPECT_TRUE(golden(score(0.3, 0.0), 0.65));
  }
}

}  // namespace
}  // namespace headloom::tasks
