#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

// The one place that says how close is close. Each function returns nothing when the tensors agree,
// and otherwise what differs, by how much, where, and the bound. A NaN differs from everything but
// in differs_in_bits(); so does another shape.
namespace headloom::testing {

using Difference = std::optional<std::string>;

// The step between neighbouring numbers of `type` at 1.
double epsilon(at::ScalarType type);

// The largest magnitude of the tensor, 0 when it is empty.
double magnitude(const at::Tensor& tensor);

// Against values worked out elsewhere in float64: 1e-6 relative, or better.
Difference differs_from_golden(const at::Tensor& found, const at::Tensor& golden);

// Against the exact result, where rounding in the precision of `found` is the only excuse. `scale`
// is the magnitude of the terms that were added up, when larger than that of the result.
Difference differs_by_more_than_rounding(const at::Tensor& found, const at::Tensor& exact,
                                         double scale = 0.0);

// For half precision: at most twice the error of the reference in that precision, and one step.
Difference worse_than_reference(const at::Tensor& found, const at::Tensor& reference,
                                const at::Tensor& exact, double scale = 0.0);

// The same bits, NaNs included.
Difference differs_in_bits(const at::Tensor& found, const at::Tensor& expected);

Difference is_not_finite(const at::Tensor& found);
Difference is_not_zero(const at::Tensor& found);

// Central differences in float64: the step, and how far the quotient may be from the derivative of
// a function whose value and derivative have the given magnitudes.
double difference_step();
double difference_bound(double value, double derivative);

// Standard deviations that a statistic of random numbers may be away from its expectation.
double sigmas();

}  // namespace headloom::testing
