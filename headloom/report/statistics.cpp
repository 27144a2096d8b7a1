#include "headloom/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "headloom/base/check.h"

namespace headloom::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The continued fraction of the incomplete beta function (Abramowitz and Stegun, 26.5.8), by
// Lentz's method. Converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  const auto nonzero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1.0;
  double d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
  double result = d;
  for (int m = 1; m <= 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1.0 / nonzero(1.0 + even * d);
    c = nonzero(1.0 + even / c);
    result *= c * d;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1.0 / nonzero(1.0 + odd * d);
    c = nonzero(1.0 + odd / c);
    const double factor = c * d;
    result *= factor;
    if (std::abs(factor - 1.0) < 1e-15) break;
  }
  return result;
}

// Regularised incomplete beta function I_x(a, b), given both x and y = 1 - x.
double incomplete_beta(double x, double y, double a, double b) {
  if (x <= 0.0) return 0.0;
  if (y <= 0.0) return 1.0;
  if (x > (a + 1.0) / (a + b + 2.0)) return 1.0 - incomplete_beta(y, x, b, a);
  const double log_front =
      std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y);
  return std::exp(log_front) * beta_fraction(x, a, b) / a;
}

// Probability of |T| > t, for t >= 0.
double two_tails(double t, double degrees) {
  const double total = degrees + t * t;
  return incomplete_beta(degrees / total, t * t / total, degrees / 2.0, 0.5);
}

}  // namespace

double student_t_quantile(double probability, double degrees) {
  HEADLOOM_CHECK(probability > 0.0 && probability < 1.0 && degrees > 0.0, "student_t_quantile",
                 "a probability between 0 and 1 and degrees of freedom above 0",
                 cat("probability ", probability, ", degrees ", degrees));
  if (probability < 0.5) return -student_t_quantile(1.0 - probability, degrees);
  const double tails = 2.0 * (1.0 - probability);
  double low = 0.0, high = 1.0;
  while (two_tails(high, degrees) > tails && high < 1e150) high *= 2.0;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2.0;
    if (middle == low || middle == high) break;
    (two_tails(middle, degrees) > tails ? low : high) = middle;
  }
  return low + (high - low) / 2.0;
}

Estimate estimate_mean(const std::vector<double>& samples, double confidence) {
  const auto n = static_cast<double>(samples.size());
  if (samples.empty()) return {kNan, kNan, 0};
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / n;
  if (samples.size() < 2) return {mean, kNan, samples.size()};
  double squares = 0.0;
  for (const double sample : samples) squares += (sample - mean) * (sample - mean);
  const double standard_error = std::sqrt(squares / (n - 1.0) / n);
  const double t = student_t_quantile(0.5 + confidence / 2.0, n - 1.0);
  return {mean, t * standard_error, samples.size()};
}

Estimate estimate_difference(const std::vector<double>& values, const std::vector<double>& baseline,
                             double confidence) {
  HEADLOOM_CHECK(values.size() == baseline.size(), "estimate_difference", "as many values as pairs",
                 cat(values.size(), " and ", baseline.size()));
  std::vector<double> differences;
  for (size_t i = 0; i < values.size(); ++i) differences.push_back(values[i] - baseline[i]);
  return estimate_mean(differences, confidence);
}

double median(std::vector<double> values) {
  if (values.empty()) return kNan;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
}

}  // namespace headloom::report
