#include "headloom/tensor/gradients.h"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>

namespace headloom {
namespace {

// Kernels run with the autograd keys excluded; this brings them back for a scope.
class RecordingScope {
 public:
  RecordingScope()
      : keys_(c10::impl::tls_local_dispatch_key_set().included_,
              c10::impl::tls_local_dispatch_key_set().excluded_ -
                  c10::autograd_dispatch_keyset_with_ADInplaceOrView),
        grad_mode_(true) {}

 private:
  c10::impl::ForceDispatchKeyGuard keys_;
  at::AutoGradMode grad_mode_;
};

}  // namespace

std::vector<at::Tensor> gradients_of(const TensorFunction& function,
                                     const std::vector<at::Tensor>& inputs,
                                     const std::vector<bool>& wanted, const at::Tensor& grad_output,
                                     bool create_graph) {
  const RecordingScope recording;
  std::vector<at::Tensor> arguments = inputs;
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i] || !inputs[i].defined()) continue;
    if (!create_graph) arguments[i] = inputs[i].detach().requires_grad_(true);
    // A tensor that needs no gradient itself still gets one here; an alias keeps the caller's flag.
    if (!arguments[i].requires_grad()) arguments[i] = inputs[i].detach().requires_grad_(true);
    leaves.push_back(arguments[i]);
  }
  std::vector<at::Tensor> result(inputs.size());
  if (leaves.empty()) return result;
  const at::Tensor output = function(arguments);
  const auto found =
      torch::autograd::grad({output}, leaves, {grad_output}, /*retain_graph=*/create_graph,
                            create_graph, /*allow_unused=*/true);
  size_t next = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted[i] || !inputs[i].defined()) continue;
    result[i] = found[next++];
    if (!result[i].defined()) result[i] = at::zeros_like(inputs[i]);
  }
  return result;
}

at::Tensor or_empty(const at::Tensor& gradient, const at::Tensor& like) {
  return gradient.defined() ? gradient : at::empty({0}, like.options());
}

at::Tensor or_undefined(const at::Tensor& gradient, bool wanted) {
  return wanted ? gradient : at::Tensor();
}

at::Tensor value_or_undefined(const std::optional<at::Tensor>& tensor) {
  return tensor.value_or(at::Tensor());
}

std::optional<at::Tensor> as_optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

bool needs_graph(const std::vector<at::Tensor>& tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

}  // namespace headloom
