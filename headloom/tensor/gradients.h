#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

namespace headloom {

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Gradients of <grad_output, function(inputs)> by autograd, for the inputs that are `wanted`; an
// undefined tensor in the other places. Works inside an operator's kernel, below the autograd keys,
// where recording is off. With `create_graph` the inputs are used as they are and the result is
// itself differentiable: that is how an operator whose backward is a kernel gets a second
// derivative.
std::vector<at::Tensor> gradients_of(const TensorFunction& function,
                                     const std::vector<at::Tensor>& inputs,
                                     const std::vector<bool>& wanted, const at::Tensor& grad_output,
                                     bool create_graph = false);

// A gradient as a dispatcher return value: empty [0] where none was wanted, because a schema's
// Tensor must be defined.
at::Tensor or_empty(const at::Tensor& gradient, const at::Tensor& like);

// The reverse, for autograd: undefined where the operator returned no gradient.
at::Tensor or_undefined(const at::Tensor& gradient, bool wanted);

// The tensor of an optional argument, undefined when there is none; and back.
at::Tensor value_or_undefined(const std::optional<at::Tensor>& tensor);
std::optional<at::Tensor> as_optional(const at::Tensor& tensor);

// Whether autograd records and any of the tensors takes part.
bool needs_graph(const std::vector<at::Tensor>& tensors);

}  // namespace headloom
