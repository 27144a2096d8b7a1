#include "headloom/mechanisms/linear.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "headloom/base/parallel.h"
#include "headloom/kernels/transposition.h"
#include "headloom/tensor/gradients.h"

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

// Elements that a thread moves at least, and the rows that it takes at a time: whole cache lines of
// the result.
constexpr int64_t kMoved = int64_t{1} << 15, kRows = 16;

// x [N, I] -> [I, N], contiguous. Torch's own copy of a transpose runs on one thread.
Tensor transposed(const Tensor& x) {
  if (x.stride(1) != 1) return x.t().contiguous();
  const int64_t N = x.size(0), I = x.size(1);
  const Tensor out = at::empty({I, N}, x.options());
  const float* from = x.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const auto kernel = kernels::transposition_table(kernels::active_isa()).f32;
  const int64_t grain = std::max<int64_t>(1, kMoved / (kRows * std::max<int64_t>(1, I)));
  parallel_for(0, (N + kRows - 1) / kRows, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kRows, last = std::min(end * kRows, N);
    kernel({from + first * x.stride(0), x.stride(0), last - first, I, to + first, N});
  });
  return out;
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
    if (context->needs_input_grad(1)) {
      // As the transpose of a^T grad: oneDNN is three times slower with many rows to write. Torch
      // would copy both transposes.
      grad_b = needs_graph({a, grad}) ? headloom::linear(a.t(), grad.t()).t()
                                      : transposed(headloom::linear(transposed(a), grad.t()));
    }
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
