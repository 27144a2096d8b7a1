// Autograd and autocast of dot_product_attention.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "headloom/mechanisms/dot_product/dot_product.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
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

// Saved: the inputs, the output and the log-sum-exp, all O(T); the weights are computed again.
struct DotProductFunction : torch::autograd::Function<DotProductFunction> {
  // The bias comes apart from `call`, where autograd would not see it.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& bias, DotProductCall call) {
    call.bias = bias;
    const bool bias_gradient = bias && bias->requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below;
    const DotProductHalves halves = call_dot_product_forward(q, k, v, call, bias_gradient);
    save(ctx, q, k, v, call, halves);
    ctx->saved_data["bias_gradient"] = bias_gradient;
    return std::get<0>(halves);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // A backward pass inside an autocast region must not lower the sums that the kernels keep wide.
    const c10::impl::ExcludeDispatchKeyGuard off(c10::autocast_dispatch_keyset);
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
    auto [grad_q, grad_k, grad_v, grad_bias] =
        call_dot_product_backward(grads[0], q, k, v, saved[8], saved[9], call, bias_gradient);
    result[0] = grad_q;
    result[1] = grad_k;
    result[2] = grad_v;
    result[3] = or_undefined(grad_bias, bias_gradient);
    return result;
  }
};

template <class Read = decltype(&DotProductOp::read)>
struct Wrappers;

template <class... Options>
struct Wrappers<DotProductCall (*)(Options...)> {
  static Tensor autograd(const Tensor& q, const Tensor& k, const Tensor& v, Options... options) {
    DotProductCall call = DotProductOp::read(options...);
    const OptionalTensor bias = std::exchange(call.bias, std::nullopt);
    return DotProductFunction::apply(q, k, v, bias, call);
  }

  // Attention runs in autocast's lower precision; the accumulation inside stays in float32.
  template <c10::DeviceType device>
  static Tensor autocast(const Tensor& q, const Tensor& k, const Tensor& v, Options... options) {
    const c10::impl::ExcludeDispatchKeyGuard off(
        c10::DispatchKeySet(at::autocast::get_autocast_dispatch_key_from_device_type(device)));
    const at::ScalarType type = at::autocast::get_autocast_dtype(device);
    const auto cast = [&](const Tensor& x) { return at::autocast::cached_cast(type, x, device); };
    DotProductCall call = DotProductOp::read(options...);
    if (call.bias) call.bias = cast(*call.bias);
    return call_dot_product(cast(q), cast(k), cast(v), call);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("dot_product_attention", &Wrappers<>::autograd);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("dot_product_attention", &Wrappers<>::autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("dot_product_attention", &Wrappers<>::autocast<c10::DeviceType::CUDA>);
}

}  // namespace headloom
