#include "tests/support/closeness.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "headloom/base/check.h"

namespace headloom::testing {
namespace {

using at::Tensor;

constexpr double kGolden = 1e-6;
// Roundings that add up in the worst order: sums of some hundred terms, a few functions each.
constexpr double kRoundings = 100.0;
// Half precision holds no sums: arguments and results are rounded, a few times on the way.
constexpr double kHalfRoundings = 4.0;
// Arguments are of order one, so a result far below it is a difference of larger numbers.
constexpr double kSmallestScale = 0.1;

Tensor wide(const Tensor& tensor) {
  return tensor.detach().to(at::kCPU, at::kDouble);
}

std::string position(const Tensor& tensor, int64_t flat) {
  std::string text = "]";
  for (int64_t axis = tensor.dim() - 1; axis >= 0; --axis) {
    text = cat(flat % tensor.size(axis), text);
    if (axis > 0) text = ", " + text;
    flat /= tensor.size(axis);
  }
  return "[" + text;
}

Difference other_shape(const Tensor& found, const Tensor& expected) {
  if (!found.defined()) return "no tensor";
  if (found.sizes() == expected.sizes()) return std::nullopt;
  return cat("shape ", found.sizes(), ", expected ", expected.sizes());
}

// The worst error against its bound; a NaN counts as infinitely far.
Difference worst(const Tensor& found, const Tensor& expected, const Tensor& bounds) {
  if (found.numel() == 0) return std::nullopt;
  const Tensor difference =
      at::where(found == expected, at::zeros_like(found), (found - expected).abs());
  const Tensor error = difference.nan_to_num(std::numeric_limits<double>::infinity());
  const Tensor excess = error - bounds;
  const Tensor share = excess.expand(found.sizes()).reshape({-1});
  const int64_t at_index = share.argmax().item<int64_t>();
  if (share[at_index].item<double>() <= 0.0) return std::nullopt;
  const auto pick = [&](const Tensor& x) {
    return x.expand(found.sizes()).reshape({-1})[at_index].item<double>();
  };
  return cat("max error ", pick(error), " > bound ", pick(bounds), " at ",
             position(found, at_index), ": found ", pick(found), ", expected ", pick(expected),
             "; ", (excess > 0).sum().item<int64_t>(), " of ", found.numel(), " elements differ");
}

Difference within(const Tensor& found, const Tensor& expected, double bound) {
  return worst(wide(found), wide(expected), at::scalar_tensor(bound, at::kDouble));
}

}  // namespace

double epsilon(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 0x1p-52;
    case at::kFloat:
      return 0x1p-23;
    case at::kHalf:
      return 0x1p-10;
    case at::kBFloat16:
      return 0x1p-7;
    default:
      fail("epsilon", "a floating type", cat(type));
  }
}

double magnitude(const Tensor& tensor) {
  return tensor.numel() == 0 ? 0.0 : wide(tensor).abs().max().item<double>();
}

Difference differs_from_golden(const Tensor& found, const Tensor& golden) {
  if (const Difference shape = other_shape(found, golden)) return shape;
  const Tensor expected = wide(golden);
  // Values that cancel to nearly nothing carry the rounding of the largest.
  const Tensor bounds = expected.abs() * kGolden + kRoundings * epsilon(at::kDouble) *
                                                       std::max(magnitude(golden), kSmallestScale);
  return worst(wide(found), expected, bounds);
}

Difference differs_by_more_than_rounding(const Tensor& found, const Tensor& exact, double scale) {
  if (const Difference shape = other_shape(found, exact)) return shape;
  const double terms = std::max({magnitude(exact), scale, kSmallestScale});
  const bool half = epsilon(found.scalar_type()) > epsilon(at::kFloat);
  const double roundings = half ? kHalfRoundings : kRoundings;
  return within(found, exact, roundings * epsilon(found.scalar_type()) * terms);
}

Difference worse_than_reference(const Tensor& found, const Tensor& reference, const Tensor& exact,
                                double scale) {
  if (const Difference shape = other_shape(found, exact)) return shape;
  const double step =
      epsilon(found.scalar_type()) * std::max({magnitude(exact), scale, kSmallestScale});
  const double reference_error = magnitude(wide(reference) - wide(exact));
  return within(found, exact, 2 * reference_error + step);
}

Difference differs_in_bits(const Tensor& found, const Tensor& expected) {
  if (const Difference shape = other_shape(found, expected)) return shape;
  if (found.scalar_type() != expected.scalar_type()) {
    return cat("dtype ", found.scalar_type(), ", expected ", expected.scalar_type());
  }
  if (found.numel() == 0) return std::nullopt;
  const auto words = [](const Tensor& x) {
    return x.detach().to(at::kCPU).contiguous().view({-1, 1}).view(at::kByte);
  };
  const Tensor differs = (words(found) != words(expected)).any(1);
  const int64_t count = differs.sum().item<int64_t>();
  if (count == 0) return std::nullopt;
  const int64_t first = differs.to(at::kInt).argmax().item<int64_t>();
  const auto pick = [first](const Tensor& x) {
    return x.detach().reshape({-1})[first].to(at::kDouble).item<double>();
  };
  return cat(count, " of ", found.numel(), " elements differ in their bits, first at ",
             position(found, first), ": found ", pick(found), ", expected ", pick(expected));
}

Difference is_not_finite(const Tensor& found) {
  const Tensor bad = ~wide(found).isfinite();
  const int64_t count = bad.sum().item<int64_t>();
  if (count == 0) return std::nullopt;
  return cat(count, " of ", found.numel(), " elements are not finite, first at ",
             position(found, bad.reshape({-1}).to(at::kInt).argmax().item<int64_t>()));
}

Difference is_not_zero(const Tensor& found) {
  return within(found, at::zeros_like(found), 0.0);
}

double difference_step() {
  return std::cbrt(epsilon(at::kDouble));
}

double difference_bound(double value, double derivative) {
  // The step leaves an error of step^2 from the third derivative and eps / step from rounding.
  const double step = difference_step();
  return 1000.0 * step * step * (1.0 + std::abs(value) + std::abs(derivative));
}

double sigmas() {
  return 5.0;
}

}  // namespace headloom::testing
