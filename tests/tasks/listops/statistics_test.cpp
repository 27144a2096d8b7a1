// The distribution of the generated expressions: lengths against exact convolution, the rest
// against the figures of a 20,000-sample simulation of the published rule.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "headloom/tasks/listops/generator.h"
#include "tests/tasks/listops/tree.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

constexpr double kSimulated = 20'000;  // samples behind the published figures
constexpr double kRounding = 0.0005;   // of figures printed with three decimals

using Distribution = std::vector<double>;  // by length, up to the longest

// Lengths of `one` plus lengths of `other`, cut at the longest.
Distribution convolve(const Distribution& one, const Distribution& other) {
  Distribution sum(one.size());
  for (size_t a = 0; a < one.size(); ++a) {
    if (one[a] == 0.0) continue;
    for (size_t b = 0; a + b < sum.size(); ++b) sum[a + b] += one[a] * other[b];
  }
  return sum;
}

// Of a node at depth 1, lengths beyond the longest left out.
Distribution exact_lengths(const GeneratorConfig& config) {
  const size_t size = static_cast<size_t>(config.max_length) + 1;
  Distribution node(size);
  node[1] = 1.0;
  for (int64_t depth = config.max_depth - 1; depth >= 1; --depth) {
    Distribution parent(size), arguments = node;
    const double share = 0.25 / static_cast<double>(config.max_args - 1);
    for (int64_t count = 2; count <= config.max_args; ++count) {
      arguments = convolve(arguments, node);
      for (size_t length = 2; length < size; ++length) {
        parent[length] += share * arguments[length - 2];
      }
    }
    parent[1] += 0.75;
    node = parent;
  }
  return node;
}

double kept_share(const Distribution& lengths, const GeneratorConfig& config) {
  return std::accumulate(lengths.begin() + config.min_length, lengths.end(), 0.0);
}

// Five standard deviations of a share seen in `samples`.
double bound(double share, double samples) {
  return 5 * std::sqrt(share * (1 - share) / samples);
}

// What two simulations of the same share may differ by.
double simulation_bound(double share, double samples) {
  return bound(share, 1 / (1 / samples + 1 / kSimulated)) + kRounding;
}

void expect_lengths(const Examples& examples, int64_t drawn, const GeneratorConfig& config) {
  const Distribution exact = exact_lengths(config);
  const double kept = kept_share(exact, config), count = static_cast<double>(examples.size());
  EXPECT_NEAR(count / static_cast<double>(drawn), kept, bound(kept, drawn));

  std::vector<double> seen(exact.size());
  for (const Example& example : examples) ++seen[example.tokens.size()];
  double below = 0, expected = 0, largest = 0;
  for (size_t length = config.min_length; length < exact.size(); ++length) {
    below += seen[length] / count;
    expected += exact[length] / kept;
    largest = std::max(largest, std::abs(below - expected));
  }
  // Kolmogorov: larger with probability 2 exp(-2 * 2.5^2), four in a million.
  EXPECT_LT(largest, 2.5 / std::sqrt(count));
}

void expect_token_mix(const Examples& examples) {
  double digits = 0, operators = 0, closers = 0;
  for (const Example& example : examples) {
    for (const uint8_t token : example.tokens) {
      (token < kMin ? digits : token < kClose ? operators : closers) += 1;
    }
  }
  const double total = digits + operators + closers;
  EXPECT_NEAR(digits / total, 0.716, 0.002);
  EXPECT_NEAR(operators / total, 0.142, 0.002);
  EXPECT_EQ(closers, operators);
}

using Histogram = std::array<double, 10>;

void expect_histogram(Histogram counts, const Histogram& expected, const std::string& what) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  for (int value = 0; value < 10; ++value) {
    EXPECT_NEAR(counts[value] / total, expected[value], simulation_bound(expected[value], total))
        << what << ", value " << value;
  }
}

void expect_values(const Examples& examples) {
  Histogram all{};
  std::map<uint8_t, Histogram> by_root;
  for (const Example& example : examples) {
    ++all[example.value];
    ++by_root[example.tokens.front()][example.value];
  }
  expect_histogram(all, {.169, .088, .072, .078, .092, .091, .082, .071, .088, .170}, "all");
  Histogram min = {.564, .209, .107, .053, .031, .019, .009, .004, .003, .001};
  expect_histogram(by_root[kMin], min, "MIN");
  std::reverse(min.begin(), min.end());
  expect_histogram(by_root[kMax], min, "MAX");
  expect_histogram(by_root[kMed], {.012, .038, .100, .171, .210, .208, .145, .074, .033, .008},
                   "MED");
  expect_histogram(by_root[kSm], {.1, .1, .1, .1, .1, .1, .1, .1, .1, .1}, "SM");
}

// Accuracies of guessing: what a model that sees no more than this reaches.
void expect_heuristics(const Examples& examples) {
  std::map<uint8_t, Histogram> by_root;
  Histogram all{};
  double digits_right = 0;
  for (const Example& example : examples) {
    ++all[example.value];
    ++by_root[example.tokens.front()][example.value];
    const Tree tree(example.tokens);
    std::vector<int> values;
    for (const Tree& child : tree.children) {
      if (child.children.empty()) values.push_back(child.value());
    }
    if (!values.empty()) digits_right += tree.apply(values) == example.value;
  }
  const double count = static_cast<double>(examples.size());
  double root_right = 0;
  for (const auto& [root, values] : by_root) {
    root_right += *std::max_element(values.begin(), values.end());
  }
  EXPECT_NEAR(*std::max_element(all.begin(), all.end()) / count, 0.168, 0.01);
  EXPECT_NEAR(root_right / count, 0.358, simulation_bound(0.358, count));
  EXPECT_NEAR(digits_right / count, 0.486, 0.01 + bound(0.486, count));
}

void expect_published_distribution(int64_t count) {
  const GeneratorConfig config;
  Generator generator(config);
  const Examples examples = generator.next(count);
  expect_lengths(examples, generator.drawn(), config);
  expect_token_mix(examples);
  expect_values(examples);
  expect_heuristics(examples);
  for (const Example& example : examples) EXPECT_EQ(Tree(example.tokens).depth(), 9);
}

TEST(ListOpsStatistics, ExactLengthsAreThePublishedOnes) {
  const GeneratorConfig config;
  const Distribution lengths = exact_lengths(config);
  const double kept = kept_share(lengths, config);
  // The simulation counted draws until it had its samples.
  EXPECT_NEAR(kept, 0.082, bound(kept, kSimulated / kept) + kRounding);

  const std::map<double, double> percentiles = {{.01, 508},  {.10, 580},  {.25, 708}, {.50, 961},
                                                {.75, 1319}, {.90, 1644}, {.99, 1955}};
  double below = 0, mean = 0, square = 0;
  auto next = percentiles.begin();
  for (size_t length = config.min_length; length < lengths.size(); ++length) {
    const double share = lengths[length] / kept, value = static_cast<double>(length);
    below += share;
    mean += value * share;
    square += value * value * share;
    for (; next != percentiles.end() && below >= next->first; ++next) {
      EXPECT_NEAR(value, next->second, 0.015 * next->second) << next->first;
    }
  }
  EXPECT_EQ(next, percentiles.end());
  EXPECT_NEAR(mean, 1041, 5 * std::sqrt((square - mean * mean) / kSimulated));
}

TEST(ListOpsStatistics, FollowThePublishedRule) {
  expect_published_distribution(2'000);
}

TEST(ListOpsStatistics, FollowThePublishedRuleSlow) {
  expect_published_distribution(20'000);
}

TEST(ListOpsStatistics, ShortExpressionsHaveTheirExactLengths) {
  GeneratorConfig config;
  config.min_length = 25;  // so long that repeats, which are dropped, are rare
  config.max_length = 60;
  config.max_args = 5;
  Generator generator(config);
  const Examples examples = generator.next(20'000);
  expect_lengths(examples, generator.drawn(), config);
}

}  // namespace
}  // namespace headloom::tasks::listops
