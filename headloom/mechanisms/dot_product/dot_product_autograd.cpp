// Autograd and autocast of dot_product_attention.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "headloom/mechanisms/dot_product/dot_product.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Saved: the inputs, the output and the log-sum-exp, all O(T); the weights are computed again.
struct DotProductFunction : torch::autograd::Function<DotProductFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& bias, const OptionalTensor& key_padding_mask,
                        bool causal, std::optional<double> scale, double dropout_p,
                        const OptionalTensor& seed, const OptionalTensor& cu_seqlens_q,
                        const OptionalTensor& cu_seqlens_k) {
    const bool bias_gradient = bias && bias->requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [out, log_sum_exp] = call_dot_product_forward(
        q, k, v,
        {bias, key_padding_mask, causal, scale, dropout_p, seed, cu_seqlens_q, cu_seqlens_k},
        bias_gradient);
    ctx->save_for_backward({q, k, v, value_or_undefined(bias), value_or_undefined(key_padding_mask),
                            value_or_undefined(seed), value_or_undefined(cu_seqlens_q),
                            value_or_undefined(cu_seqlens_k), out, log_sum_exp});
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["dropout_p"] = dropout_p;
    ctx->saved_data["bias_gradient"] = bias_gradient;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // A backward pass inside an autocast region must not lower the sums that the kernels keep wide.
    const c10::impl::ExcludeDispatchKeyGuard off(c10::autocast_dispatch_keyset);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3];
    const bool bias_gradient = ctx->saved_data["bias_gradient"].toBool();
    const DotProductCall call{as_optional(bias),
                              as_optional(saved[4]),
                              ctx->saved_data["causal"].toBool(),
                              ctx->saved_data["scale"].toOptional<double>(),
                              ctx->saved_data["dropout_p"].toDouble(),
                              as_optional(saved[5]),
                              as_optional(saved[6]),
                              as_optional(saved[7])};
    variable_list result(11);
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

Tensor autograd_kernel(const Tensor& q, const Tensor& k, const Tensor& v,
                       const OptionalTensor& bias, const OptionalTensor& key_padding_mask,
                       bool causal, std::optional<double> scale, double dropout_p,
                       const OptionalTensor& seed, const OptionalTensor& cu_seqlens_q,
                       const OptionalTensor& cu_seqlens_k) {
  return DotProductFunction::apply(q, k, v, bias, key_padding_mask, causal, scale, dropout_p, seed,
                                   cu_seqlens_q, cu_seqlens_k);
}

// Attention runs in autocast's lower precision; the accumulation inside stays in float32.
template <c10::DeviceType device>
Tensor autocast_kernel(const Tensor& q, const Tensor& k, const Tensor& v,
                       const OptionalTensor& bias, const OptionalTensor& key_padding_mask,
                       bool causal, std::optional<double> scale, double dropout_p,
                       const OptionalTensor& seed, const OptionalTensor& cu_seqlens_q,
                       const OptionalTensor& cu_seqlens_k) {
  const c10::impl::ExcludeDispatchKeyGuard off(
      c10::DispatchKeySet(at::autocast::get_autocast_dispatch_key_from_device_type(device)));
  const at::ScalarType type = at::autocast::get_autocast_dtype(device);
  const auto cast = [&](const Tensor& x) { return at::autocast::cached_cast(type, x, device); };
  DotProductOptions options{bias ? OptionalTensor(cast(*bias)) : std::nullopt,
                            key_padding_mask,
                            causal,
                            scale,
                            dropout_p,
                            seed,
                            cu_seqlens_q,
                            cu_seqlens_k};
  return dot_product_attention(cast(q), cast(k), cast(v), options);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("dot_product_attention", autograd_kernel);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("dot_product_attention", autocast_kernel<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("dot_product_attention", autocast_kernel<c10::DeviceType::CUDA>);
}

}  // namespace headloom
