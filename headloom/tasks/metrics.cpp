#include "headloom/tasks/metrics.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "headloom/base/check.h"

namespace headloom::tasks {
namespace {

using at::Tensor;

constexpr int64_t kBins = 10;

std::string bin_key(const char* what, int64_t bin) {
  return cat("calibration_", what, '_', bin);
}

double total(const Totals& totals, const std::string& key) {
  const auto found = totals.find(key);
  return found == totals.end() ? 0.0 : found->second;
}

// |accuracy - confidence| of a bin, and how many examples it holds.
std::pair<double, double> gap_of(const Totals& totals, int64_t bin) {
  const double count = total(totals, bin_key("count", bin));
  if (count == 0.0) return {0.0, 0.0};
  const double right = total(totals, bin_key("right", bin));
  return {std::abs(right - total(totals, bin_key("confidence", bin))) / count, count};
}

Tensor entropy(const Tensor& p) {
  return -at::xlogy(p, p).sum(-1);
}

// The continued fraction of the incomplete beta function (Lentz's method), which converges fast for
// x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr int kTerms = 1000;
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1.0, d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)), value = d;
  for (int m = 1; m <= kTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1.0 / away_from_zero(1.0 + even * d);
    c = away_from_zero(1.0 + even / c);
    value *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1.0 / away_from_zero(1.0 + odd * d);
    c = away_from_zero(1.0 + odd / c);
    value *= d * c;
    if (std::abs(d * c - 1.0) < std::numeric_limits<double>::epsilon()) break;
  }
  return value;
}

// I_x(a, b)
double regularised_beta(double a, double b, double x) {
  if (x <= 0.0) return 0.0;
  if (x >= 1.0) return 1.0;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1.0) / (a + b + 2.0)) return front * beta_fraction(a, b, x) / a;
  return 1.0 - front * beta_fraction(b, a, 1.0 - x) / b;
}

struct Moments {
  double mean = 0.0, variance = 0.0, count = 0.0;

  explicit Moments(const std::vector<double>& x) : count(static_cast<double>(x.size())) {
    HEADLOOM_CHECK(x.size() >= 2, "t-test", "two samples or more", cat(x.size()));
    for (const double value : x) mean += value / count;
    for (const double value : x) variance += (value - mean) * (value - mean) / (count - 1.0);
  }
};

TTest without_variance(double difference, double degrees) {
  const double infinity = std::numeric_limits<double>::infinity();
  return difference == 0.0 ? TTest{0.0, degrees, 1.0}
                           : TTest{std::copysign(infinity, difference), degrees, 0.0};
}

std::vector<double> column(const Tensor& samples, int64_t example, int64_t cls) {
  const Tensor values = samples.select(1, example).select(1, cls).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

}  // namespace

void add_calibration(const Tensor& probabilities, const Tensor& targets, Totals& totals) {
  const auto [confidences, predictions] = probabilities.to(at::kCPU, at::kDouble).max(1);
  const Tensor right = (predictions == targets.to(at::kCPU)).to(at::kDouble).contiguous();
  for (int64_t i = 0; i < confidences.size(0); ++i) {
    const double confidence = confidences[i].item<double>();
    const auto bin = std::min(static_cast<int64_t>(confidence * kBins), kBins - 1);
    totals[bin_key("count", bin)] += 1.0;
    totals[bin_key("confidence", bin)] += confidence;
    totals[bin_key("right", bin)] += right.const_data_ptr<double>()[i];
  }
}

double expected_calibration_error(const Totals& totals) {
  double sum = 0.0, examples = 0.0;
  for (int64_t bin = 0; bin < kBins; ++bin) {
    const auto [gap, count] = gap_of(totals, bin);
    sum += count * gap;
    examples += count;
  }
  return examples == 0.0 ? 0.0 : 100.0 * sum / examples;
}

double maximum_calibration_error(const Totals& totals) {
  double most = 0.0;
  for (int64_t bin = 0; bin < kBins; ++bin) most = std::max(most, gap_of(totals, bin).first);
  return 100.0 * most;
}

double negative_log_likelihood(const Tensor& probabilities, const Tensor& targets) {
  const Tensor chosen = probabilities.to(at::kDouble).gather(1, targets.unsqueeze(1));
  return -chosen.log().mean().item<double>();
}

Tensor predictive_entropy(const Tensor& samples) {
  return entropy(samples.to(at::kDouble).mean(0));
}

Tensor mutual_information(const Tensor& samples) {
  return predictive_entropy(samples) - entropy(samples.to(at::kDouble)).mean(0);
}

double two_sided_p(double t, double degrees) {
  return regularised_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t));
}

TTest paired_t_test(const std::vector<double>& x, const std::vector<double>& y) {
  HEADLOOM_CHECK(x.size() == y.size(), "paired t-test", "as many of the one as of the other",
                 cat(x.size(), " and ", y.size()));
  std::vector<double> differences;
  for (size_t i = 0; i < x.size(); ++i) differences.push_back(x[i] - y[i]);
  const Moments of(differences);
  const double degrees = of.count - 1.0;
  if (of.variance == 0.0) return without_variance(of.mean, degrees);
  const double t = of.mean / std::sqrt(of.variance / of.count);
  return {t, degrees, two_sided_p(t, degrees)};
}

TTest welch_t_test(const std::vector<double>& x, const std::vector<double>& y) {
  const Moments of_x(x), of_y(y);
  const double vx = of_x.variance / of_x.count, vy = of_y.variance / of_y.count;
  if (vx + vy == 0.0) return without_variance(of_x.mean - of_y.mean, of_x.count + of_y.count - 2.0);
  const double t = (of_x.mean - of_y.mean) / std::sqrt(vx + vy);
  const double degrees =
      (vx + vy) * (vx + vy) / (vx * vx / (of_x.count - 1.0) + vy * vy / (of_y.count - 1.0));
  return {t, degrees, two_sided_p(t, degrees)};
}

double patch_accuracy_vs_uncertainty(const Tensor& given, const Tensor& accuracy,
                                     Certainty certainty, double threshold) {
  const Tensor samples = given.to(at::kCPU, at::kDouble).contiguous();
  const bool paired = certainty == Certainty::kPairedLogits;
  const Tensor means = (paired ? samples.softmax(2) : samples).mean(0);  // [N, K]
  const Tensor top = std::get<1>(means.topk(2, 1));                      // [N, 2]
  const Tensor right = accuracy.to(at::kCPU, at::kDouble).contiguous();
  const int64_t examples = samples.size(1);
  double sum = 0.0;
  for (int64_t i = 0; i < examples; ++i) {
    const auto first = column(samples, i, top[i][0].item<int64_t>());
    const auto second = column(samples, i, top[i][1].item<int64_t>());
    const double p = (paired ? paired_t_test(first, second) : welch_t_test(first, second)).p;
    const double score = right.const_data_ptr<double>()[i];
    sum += p > threshold ? 1.0 - score : score;
  }
  return examples == 0 ? 0.0 : sum / static_cast<double>(examples);
}

}  // namespace headloom::tasks
