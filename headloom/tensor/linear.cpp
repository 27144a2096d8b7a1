#include "headloom/tensor/linear.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

// N rows, I inputs, O outputs.
namespace headloom {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Multiply-adds below which at::linear is faster: oneDNN takes some 10 microseconds to find its
// kernel again.
constexpr int64_t kFewProducts = int64_t{1} << 20;

using Product = Tensor(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       std::string_view activation,
                       c10::List<std::optional<at::Scalar>> activation_scalars,
                       std::optional<std::string_view> activation_algorithm);

// The operator that torch's compiler uses for products on oneDNN; none where torch lacks oneDNN.
const std::optional<c10::TypedOperatorHandle<Product>>& onednn_product() {
  static const auto found = []() -> std::optional<c10::TypedOperatorHandle<Product>> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !at::hasMKLDNN()) return std::nullopt;
    return schema->typed<Product>();
  }();
  return found;
}

bool is_plain(const Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat && tensor.is_cpu() && tensor.layout() == at::kStrided;
}

bool suits_onednn(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return is_plain(x) && is_plain(weight) && (!bias.defined() || is_plain(bias)) && x.dim() >= 1 &&
         weight.dim() == 2 && x.size(-1) == weight.size(1) &&
         x.numel() * weight.size(0) >= kFewProducts &&
         !at::autocast::is_autocast_enabled(at::kCPU) && at::globalContext().userEnabledMkldnn() &&
         onednn_product().has_value();
}

// a b^T + bias: a [N, I], b [O, I], bias [O] -> [N, O]. Its gradients are of the same kind, so that
// they are as fast and differentiable in their turn.
class OnednnLinear : public torch::autograd::Function<OnednnLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& a, const Tensor& b,
                        const std::optional<Tensor>& bias) {
    context->save_for_backward({a, b});
    context->saved_data["has_bias"] = bias.has_value();
    return onednn_product()->call(a, b, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &a = saved[0], &b = saved[1], &grad = grads[0];
    const bool has_bias = context->saved_data["has_bias"].toBool();
    Tensor grad_a, grad_b, grad_bias;
    if (context->needs_input_grad(0)) grad_a = headloom::linear(grad, b.t());
    // As the transpose of a^T grad: oneDNN is three times slower with many rows to write.
    if (context->needs_input_grad(1)) grad_b = headloom::linear(a.t(), grad.t()).t();
    if (has_bias && context->needs_input_grad(2)) grad_bias = grad.sum(0);
    return {grad_a, grad_b, grad_bias};
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const std::optional<Tensor> given = bias.defined() ? std::optional(bias) : std::nullopt;
  if (!suits_onednn(x, weight, bias)) return at::linear(x, weight, given);
  at::DimVector sizes(x.sizes());
  sizes.back() = weight.size(0);
  return OnednnLinear::apply(x.reshape({-1, x.size(-1)}), weight, given).view(sizes);
}

}  // namespace headloom
