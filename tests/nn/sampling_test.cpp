// B rows, V vocabulary.
#include <cmath>
#include <limits>
#include <set>

#include "headloom/nn/generate.h"
#include "tests/nn/nn_support.h"

namespace headloom::nn {
namespace {

using at::Tensor;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

SamplingOptions options(double temperature, int64_t top_k = 0, double top_p = 1.0,
                        uint64_t seed = 7) {
  SamplingOptions options;
  options.temperature = temperature;
  options.top_k = top_k;
  options.top_p = top_p;
  options.seed = seed;
  return options;
}

// Draws `rows` tokens from one distribution and checks each frequency within 5 sigma; a token of
// probability 0 must never come. At 12 tokens a test, a false alarm has probability 1e-5.
void expect_frequencies(const std::vector<double>& logits, const SamplingOptions& sampling,
                        const std::vector<double>& probabilities) {
  constexpr int64_t kRows = 20000;
  const auto size = static_cast<int64_t>(logits.size());
  const Tensor rows = at::tensor(logits, at::kDouble).expand({kRows, size});
  const Tensor counts = sample(rows, sampling, 0).bincount({}, size);
  ASSERT_EQ(counts.size(0), size);
  for (int64_t token = 0; token < size; ++token) {
    const double p = probabilities[token];
    const double found = static_cast<double>(counts[token].item<int64_t>()) / kRows;
    const double sigma = std::sqrt(p * (1 - p) / kRows);
    EXPECT_LE(std::abs(found - p), 5.0 * sigma) << "token " << token << ", frequency " << found;
  }
}

// Logits whose softmax these are.
std::vector<double> logs(std::vector<double> probabilities) {
  for (double& p : probabilities) p = std::log(p) + 3.0;
  return probabilities;
}

TEST(Sample, FollowsTheDistribution) {
  const std::vector<double> p{0.05, 0.4, 0.15, 0.1, 0.3};
  expect_frequencies(logs(p), options(1.0), p);
}

TEST(Sample, TemperatureSharpensAndFlattens) {
  const std::vector<double> p{0.5, 0.25, 0.25};
  expect_frequencies(logs(p), options(0.5), {4.0 / 6, 1.0 / 6, 1.0 / 6});
  const double root = std::sqrt(0.5), half = 0.5;
  expect_frequencies(logs(p), options(2.0),
                     {root / (root + 1), half / (root + 1), half / (root + 1)});
}

TEST(Sample, TopKKeepsTheMostProbableAlone) {
  const std::vector<double> p{0.05, 0.4, 0.15, 0.1, 0.3};
  expect_frequencies(logs(p), options(1.0, 2), {0, 0.4 / 0.7, 0, 0, 0.3 / 0.7});
  expect_frequencies(logs(p), options(1.0, 1), {0, 1, 0, 0, 0});
  expect_frequencies(logs(p), options(1.0, 99), p);
}

TEST(Sample, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::vector<double> p{0.05, 0.4, 0.15, 0.1, 0.3};
  expect_frequencies(logs(p), options(1.0, 0, 0.69), {0, 0.4 / 0.7, 0, 0, 0.3 / 0.7});
  expect_frequencies(logs(p), options(1.0, 0, 0.71), {0, 0.4 / 0.85, 0.15 / 0.85, 0, 0.3 / 0.85});
  expect_frequencies(logs(p), options(1.0, 0, 0.01), {0, 1, 0, 0, 0});
}

TEST(Sample, FiltersApplyInOrderToTheRenormalisedRest) {
  // After top_k = 3 the rest is 0.4, 0.3, 0.15 of 0.85; two tokens reach 0.8 of it, but not of 1.
  const std::vector<double> p{0.05, 0.4, 0.15, 0.1, 0.3};
  expect_frequencies(logs(p), options(1.0, 3, 0.8), {0, 0.4 / 0.7, 0, 0, 0.3 / 0.7});
  // Temperature comes first: squared, 0.4 and 0.3 have 0.25 of 0.285, which reaches 0.85.
  expect_frequencies(logs(p), options(0.5, 0, 0.85), {0, 0.16 / 0.25, 0, 0, 0.09 / 0.25});
}

TEST(Sample, EqualProbabilitiesRankByTokenId) {
  const Tensor level = at::zeros({500, 6});
  EXPECT_EQ(sample(level, options(0.0), 0).max().item<int64_t>(), 0);
  EXPECT_EQ(sample(level, options(1.0, 2), 0).max().item<int64_t>(), 1);
  EXPECT_EQ(sample(level, options(1.0, 0, 0.5), 0).max().item<int64_t>(), 2);
}

TEST(Sample, FiltersThatRemoveNothingChangeNothing) {
  const Tensor logits = at::randn({200, 9});
  const Tensor expected = sample(logits, options(1.0), 3);
  EXPECT_TRUE(at::equal(sample(logits, options(1.0, 9), 3), expected));
  EXPECT_TRUE(at::equal(sample(logits, options(1.0, 0, 1.0), 3), expected));
}

TEST(Sample, ImpossibleTokensNeverCome) {
  expect_frequencies({0.0, -kInfinity, 0.0}, options(1.0), {0.5, 0, 0.5});
  expect_frequencies({-kInfinity, -kInfinity, -1e30}, options(1.0), {0, 0, 1});
}

TEST(Sample, TemperatureZeroIsTheLargestLogit) {
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    const Tensor logits = at::randn({64, 50}).to(type);
    EXPECT_TRUE(at::equal(sample(logits, options(0.0), 0), logits.to(at::kDouble).argmax(1)));
  }
}

TEST(Sample, ADrawIsAFunctionOfSeedNumberAndRow) {
  const Tensor logits = at::randn({1, 30}).expand({40, 30});
  const Tensor all = sample(logits, options(1.0), 5);
  EXPECT_TRUE(at::equal(sample(logits, options(1.0), 5), all));
  EXPECT_TRUE(at::equal(sample(logits.narrow(0, 0, 7), options(1.0), 5), all.narrow(0, 0, 7)));
  EXPECT_FALSE(at::equal(sample(logits, options(1.0), 6), all));
  EXPECT_FALSE(at::equal(sample(logits, options(1.0, 0, 1.0, 8), 5), all));
  EXPECT_GT(std::get<0>(at::_unique(all)).numel(), 5);  // rows differ from each other
}

TEST(Sample, DrawsOfOneRowFollowTheDistribution) {
  constexpr int kDraws = 4000;
  const Tensor logits = at::tensor({std::log(0.2), std::log(0.8)}, at::kDouble).unsqueeze(0);
  int64_t ones = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    ones += sample(logits, options(1.0), draw).item<int64_t>();
  }
  EXPECT_NEAR(static_cast<double>(ones) / kDraws, 0.8, 5.0 * std::sqrt(0.16 / kDraws));
}

TEST(Sample, EmptyBatchesWork) {
  EXPECT_EQ(sample(at::zeros({0, 4}), options(1.0), 0).sizes(), (std::vector<int64_t>{0}));
}

TEST(Sample, RefusesImpossibleOptions) {
  const auto refusal_of = [](const SamplingOptions& bad) {
    return refusal([&] { sample(at::zeros({1, 4}), bad, 0); });
  };
  EXPECT_EQ(refusal_of(options(-0.5)),
            "sample: expected a finite temperature of at least 0; found temperature = -0.5. 0 is "
            "greedy.");
  EXPECT_THAT(refusal_of(options(kInfinity)), HasSubstr("temperature = inf"));
  EXPECT_THAT(refusal_of(options(std::nan(""))), HasSubstr("temperature"));
  EXPECT_EQ(refusal_of(options(1.0, -1)),
            "sample: expected top_k of at least 0; found top_k = -1. 0 keeps all tokens.");
  EXPECT_EQ(refusal_of(options(1.0, 0, 0.0)),
            "sample: expected top_p in (0, 1]; found top_p = 0. 1 keeps all tokens.");
  EXPECT_THAT(refusal_of(options(1.0, 0, 1.5)), HasSubstr("top_p = 1.5"));
  EXPECT_THAT(refusal_of(options(1.0, 0, std::nan(""))), HasSubstr("top_p"));
}

TEST(Sample, RefusesLogitsThatAreNoDistribution) {
  const auto refusal_of = [](const Tensor& logits) {
    return refusal([&] { sample(logits, options(1.0), 0); });
  };
  EXPECT_EQ(refusal_of(at::tensor({0.0, 1.0, 2.0, std::nan("")}).reshape({2, 2})),
            "sample: expected logits without NaN; found NaN in row 1.");
  EXPECT_THAT(refusal_of(at::full({1, 2}, -kInfinity)), HasSubstr("-inf in row 0"));
  EXPECT_THAT(refusal_of(at::tensor({0.0, kInfinity}).reshape({1, 2})), HasSubstr("inf in row 0"));
  EXPECT_THAT(refusal_of(at::zeros({3})), HasSubstr("[B, V], V at least 1; found shape [3]"));
  EXPECT_THAT(refusal_of(at::zeros({3, 0})), HasSubstr("found shape [3, 0]"));
  EXPECT_THAT(refusal_of(at::zeros({3, 2}, at::kLong)), HasSubstr("Long"));
  EXPECT_THAT(refusal([] { sample(at::zeros({1, 2}), options(1.0), -1); }), HasSubstr("draw = -1"));
}

}  // namespace
}  // namespace headloom::nn
