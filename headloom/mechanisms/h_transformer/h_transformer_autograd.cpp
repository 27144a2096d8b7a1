// Autograd and autocast of h_attention.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
          const HAttentionCall& call, const HAttentionHalves& halves) {
  ctx->save_for_backward(
      {q, k, v, value_or_undefined(call.bias), value_or_undefined(call.key_padding_mask),
       value_or_undefined(call.query_padding_mask), value_or_undefined(call.cu_seqlens),
       value_or_undefined(call.seed), std::get<0>(halves), std::get<1>(halves)});
  ctx->saved_data["block_size"] = call.block_size;
  ctx->saved_data["causal"] = call.causal;
  ctx->saved_data["scale"] = call.scale;
  ctx->saved_data["dropout_p"] = call.dropout_p;
  ctx->saved_data["fine"] = call.fine;
  ctx->saved_data["center_keys"] = call.center_keys;
}

HAttentionCall restore(AutogradContext* ctx, const variable_list& saved) {
  return {ctx->saved_data["block_size"].toInt(),
          ctx->saved_data["causal"].toBool(),
          as_optional(saved[3]),
          as_optional(saved[4]),
          as_optional(saved[5]),
          as_optional(saved[6]),
          ctx->saved_data["scale"].toOptional<double>(),
          ctx->saved_data["dropout_p"].toDouble(),
          as_optional(saved[7]),
          ctx->saved_data["fine"].toBool(),
          ctx->saved_data["center_keys"].toBool()};
}

// Saved: the inputs, the output and a number a query; levels and weights are computed again.
struct HAttentionFunction : torch::autograd::Function<HAttentionFunction> {
  // The bias comes apart from `call`, where autograd would not see it.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& bias, HAttentionCall call) {
    call.bias = bias;
    const at::AutoDispatchBelowADInplaceOrView below;
    const HAttentionHalves halves = call_h_attention_forward(q, k, v, call);
    save(ctx, q, k, v, call, halves);
    return std::get<0>(halves);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3];
    const HAttentionCall call = restore(ctx, saved);
    const HAttentionWanted wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                  ctx->needs_input_grad(2),
                                  bias.defined() && ctx->needs_input_grad(3)};
    variable_list result(5);
    if (needs_graph({grads[0], q, k, v, bias})) {
      const auto found = gradients_of(
          [&](const std::vector<Tensor>& x) {
            HAttentionCall with_bias = call;
            with_bias.bias = as_optional(x[3]);
            return std::get<0>(h_attention_by_level(x[0], x[1], x[2], with_bias));
          },
          {q, k, v, bias}, {wanted[0], wanted[1], wanted[2], wanted[3]}, grads[0],
          /*create_graph=*/true);
      for (size_t i = 0; i < found.size(); ++i) result[i] = found[i];
      return result;
    }
    static const Operator<HAttentionOp, HAttentionBackward> op("h_attention_backward");
    const auto [grad_q, grad_k, grad_v, grad_bias] =
        op(grads[0], q, k, v, saved[8], saved[9], wanted, call);
    result[0] = or_undefined(grad_q, wanted[0]);
    result[1] = or_undefined(grad_k, wanted[1]);
    result[2] = or_undefined(grad_v, wanted[2]);
    result[3] = or_undefined(grad_bias, wanted[3]);
    return result;
  }
};

Tensor autograd(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& given) {
  HAttentionCall call = given;
  const OptionalTensor bias = std::exchange(call.bias, std::nullopt);
  return HAttentionFunction::apply(q, k, v, bias, call);
}

template <c10::DeviceType device>
Tensor autocast(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& given) {
  const Lowering<device> lower;
  HAttentionCall call = given;
  call.bias = lower(call.bias);
  static const Operator<HAttentionOp, HAttentionPlain> op("h_attention");
  return op(lower(q), lower(k), lower(v), call);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("h_attention", &Operator<HAttentionOp, HAttentionPlain>::kernel<autograd>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("h_attention",
         &Operator<HAttentionOp, HAttentionPlain>::kernel<autocast<c10::DeviceType::CPU>>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("h_attention",
         &Operator<HAttentionOp, HAttentionPlain>::kernel<autocast<c10::DeviceType::CUDA>>);
}

}  // namespace headloom
