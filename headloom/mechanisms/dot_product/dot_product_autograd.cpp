// Autograd and autocast of dot_product_attention.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "headloom/mechanisms/dot_product/dot_product.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
          const DotProductCall& call, const DotProductHalves& halves) {
  ctx->save_for_backward(
      {q, k, v, value_or_undefined(call.bias), value_or_undefined(call.key_padding_mask),
       value_or_undefined(call.seed), value_or_undefined(call.cu_seqlens_q),
       value_or_undefined(call.cu_seqlens_k), std::get<0>(halves), std::get<1>(halves)});
  ctx->saved_data["causal"] = call.causal;
  ctx->saved_data["scale"] = call.scale;
  ctx->saved_data["dropout_p"] = call.dropout_p;
}

DotProductCall restore(AutogradContext* ctx, const variable_list& saved) {
  return {as_optional(saved[3]),
          as_optional(saved[4]),
          ctx->saved_data["causal"].toBool(),
          ctx->saved_data["scale"].toOptional<double>(),
          ctx->saved_data["dropout_p"].toDouble(),
          as_optional(saved[5]),
          as_optional(saved[6]),
          as_optional(saved[7])};
}

// Saved: the inputs, the output and the log-sums of each query, all O(T); the weights are computed
// again.
struct DotProductFunction : torch::autograd::Function<DotProductFunction> {
  // The bias comes apart from `call`, where autograd would not see it.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& bias, DotProductCall call) {
    call.bias = bias;
    const bool bias_gradient = bias && bias->requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below;
    const DotProductHalves halves = call_dot_product_forward(q, k, v, call);
    save(ctx, q, k, v, call, halves);
    ctx->saved_data["bias_gradient"] = bias_gradient;
    return std::get<0>(halves);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3];
    const bool bias_gradient = ctx->saved_data["bias_gradient"].toBool();
    const DotProductCall call = restore(ctx, saved);
    variable_list result(5);
    if (needs_graph({grads[0], q, k, v, bias})) {
      const auto found = gradients_of(
          [&](const std::vector<Tensor>& x) {
            DotProductCall with_bias = call;
            with_bias.bias = as_optional(x[3]);
            return dot_product_composite(x[0], x[1], x[2], with_bias);
          },
          {q, k, v, bias}, {true, true, true, bias_gradient}, grads[0], /*create_graph=*/true);
      for (size_t i = 0; i < found.size(); ++i) result[i] = found[i];
      return result;
    }
    static const Operator<DotProductOp, DotProductBackward> op("dot_product_attention_backward");
    const auto [grad_q, grad_k, grad_v, grad_bias] =
        op(grads[0], q, k, v, saved[8], saved[9], bias_gradient, call);
    result[0] = grad_q;
    result[1] = grad_k;
    result[2] = grad_v;
    result[3] = or_undefined(grad_bias, bias_gradient);
    return result;
  }
};

Tensor autograd(const Tensor& q, const Tensor& k, const Tensor& v, const DotProductCall& given) {
  DotProductCall call = given;
  const OptionalTensor bias = std::exchange(call.bias, std::nullopt);
  return DotProductFunction::apply(q, k, v, bias, call);
}

template <c10::DeviceType device>
Tensor autocast(const Tensor& q, const Tensor& k, const Tensor& v, const DotProductCall& given) {
  const Lowering<device> lower;
  DotProductCall call = given;
  call.bias = lower(call.bias);
  static const Operator<DotProductOp, DotProductPlain> op("dot_product_attention");
  return op(lower(q), lower(k), lower(v), call);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("dot_product_attention", &Operator<DotProductOp, DotProductPlain>::kernel<autograd>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("dot_product_attention",
         &Operator<DotProductOp, DotProductPlain>::kernel<autocast<c10::DeviceType::CPU>>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("dot_product_attention",
         &Operator<DotProductOp, DotProductPlain>::kernel<autocast<c10::DeviceType::CUDA>>);
}

}  // namespace headloom
