#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

// Derivatives in float64 by central differences.
namespace headloom::testing {

// A scalar function of one tensor.
using ScalarFunction = std::function<double(const at::Tensor&)>;

// The derivative of the function at x along `direction`.
double directional_derivative(const ScalarFunction& function, const at::Tensor& x,
                              const at::Tensor& direction);

// Checks `gradient` of the function at x [any shape], float64: along two random directions, which
// see every element, and element by element for at most `elements` of them, evenly spread, which
// say where. Returns what differs.
std::optional<std::string> differs_from_differences(const ScalarFunction& function,
                                                    const at::Tensor& x, const at::Tensor& gradient,
                                                    const std::string& salt, int64_t elements = 64);

}  // namespace headloom::testing
