#include "tests/support/jacobian.h"

#include <ATen/ATen.h>

#include <cmath>

#include "headloom/base/check.h"
#include "tests/support/arguments.h"
#include "tests/support/closeness.h"

namespace headloom::testing {
namespace {

std::optional<std::string> compare(const std::string& where, double analytic, double numeric,
                                   double value, double scale) {
  const double bound = difference_bound(value, scale);
  const double error = std::abs(analytic - numeric);
  if (error <= bound) return std::nullopt;
  return cat(where, ": error ", error, " > bound ", bound, ": found ", analytic,
             ", central differences say ", numeric);
}

}  // namespace

double directional_derivative(const ScalarFunction& function, const at::Tensor& x,
                              const at::Tensor& direction) {
  const double step = difference_step();
  return (function(x + step * direction) - function(x - step * direction)) / (2 * step);
}

std::optional<std::string> differs_from_differences(const ScalarFunction& function,
                                                    const at::Tensor& x, const at::Tensor& gradient,
                                                    const std::string& salt, int64_t elements) {
  if (x.numel() == 0) return std::nullopt;
  const double value = function(x);
  const double scale = magnitude(gradient);
  const int64_t stride = std::max<int64_t>(1, x.numel() / elements);
  for (int64_t i = 0; i < x.numel(); i += stride) {
    const at::Tensor unit = at::zeros({x.numel()}, x.options());
    unit[i].fill_(1.0);
    const double numeric = directional_derivative(function, x, unit.view(x.sizes()));
    const double analytic = gradient.reshape({-1})[i].item<double>();
    auto bad = compare(cat("element ", i, " of ", x.sizes()), analytic, numeric, value, scale);
    if (bad) return bad;
  }
  for (int round = 0; round < 2; ++round) {
    at::Tensor direction = normal(cat(salt, "/direction", round), x.sizes()).to(x.device());
    direction = direction / direction.norm();
    const double numeric = directional_derivative(function, x, direction);
    const double analytic = (gradient * direction).sum().item<double>();
    auto bad =
        compare(cat("along a random direction of ", x.sizes()), analytic, numeric, value, scale);
    if (bad) return bad;
  }
  return std::nullopt;
}

}  // namespace headloom::testing
