// Autograd and autocast of symmetric_attention.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "headloom/mechanisms/symmetric/symmetric_dispatch.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save(AutogradContext* ctx, const SymmetricInputs& x, const SymmetricCall& call,
          const SymmetricHalves& halves) {
  ctx->save_for_backward({x.q, x.v, x.pairwise, x.k, x.bias,
                          value_or_undefined(call.key_padding_mask),
                          value_or_undefined(call.cu_seqlens), value_or_undefined(call.seed),
                          std::get<0>(halves), std::get<1>(halves)});
  ctx->saved_data["causal"] = call.causal;
  ctx->saved_data["scale"] = call.scale;
  ctx->saved_data["dropout_p"] = call.dropout_p;
  ctx->saved_data["symmetrize"] = call.symmetrize;
}

SymmetricCall restore(AutogradContext* ctx, const variable_list& saved) {
  return {as_optional(saved[3]),
          as_optional(saved[4]),
          as_optional(saved[5]),
          ctx->saved_data["causal"].toBool(),
          as_optional(saved[6]),
          ctx->saved_data["scale"].toOptional<double>(),
          ctx->saved_data["dropout_p"].toDouble(),
          as_optional(saved[7]),
          ctx->saved_data["symmetrize"].toBool()};
}

// Saved: the inputs, the output and the log-sums of each query, all O(T); the weights are computed
// again.
struct SymmetricFunction : torch::autograd::Function<SymmetricFunction> {
  // k and bias come apart from `given`, where autograd would not see them.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& v,
                        const OptionalTensor& pairwise, const OptionalTensor& k,
                        const OptionalTensor& bias, const SymmetricCall& given) {
    SymmetricCall call = given;
    call.k = k;
    call.bias = bias;
    ctx->saved_data["bias_gradient"] = bias && bias->requires_grad();
    const at::AutoDispatchBelowADInplaceOrView below;
    static const Operator<SymmetricOp, SymmetricForward> op("symmetric_attention_forward");
    const SymmetricHalves halves = op(q, v, pairwise, call);
    save(ctx, {q, v, value_or_undefined(pairwise), value_or_undefined(k), value_or_undefined(bias)},
         call, halves);
    return std::get<0>(halves);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const variable_list inputs(saved.begin(), saved.begin() + 5);
    const bool bias_gradient = ctx->saved_data["bias_gradient"].toBool();
    const std::vector<bool> wanted{true, true, saved[2].defined(), saved[3].defined(),
                                   bias_gradient};
    const SymmetricCall call = restore(ctx, saved);
    variable_list result(6);
    if (needs_graph({grads[0], saved[0], saved[1], saved[2], saved[3], saved[4]})) {
      const auto found = gradients_of(
          [&](const std::vector<Tensor>& x) {
            return symmetric_composite({x[0], x[1], x[2], x[3], x[4]}, call);
          },
          inputs, wanted, grads[0], /*create_graph=*/true);
      for (size_t i = 0; i < found.size(); ++i) result[i] = found[i];
      return result;
    }
    static const Operator<SymmetricOp, SymmetricBackward> op("symmetric_attention_backward");
    const auto [grad_q, grad_v, grad_pairwise, grad_k, grad_bias] =
        op(grads[0], saved[0], saved[1], as_optional(saved[2]), saved[8], saved[9], bias_gradient,
           call);
    const variable_list found{grad_q, grad_v, grad_pairwise, grad_k, grad_bias};
    for (size_t i = 0; i < found.size(); ++i) result[i] = or_undefined(found[i], wanted[i]);
    return result;
  }
};

Tensor autograd(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                const SymmetricCall& given) {
  SymmetricCall call = given;
  call.k.reset();
  call.bias.reset();
  return SymmetricFunction::apply(q, v, pairwise, given.k, given.bias, call);
}

template <c10::DeviceType device>
Tensor autocast(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                const SymmetricCall& given) {
  const Lowering<device> lower;
  SymmetricCall call = given;
  call.k = lower(call.k);
  call.bias = lower(call.bias);
  static const Operator<SymmetricOp, SymmetricPlain> op("symmetric_attention");
  return op(lower(q), lower(v), lower(pairwise), call);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("symmetric_attention", &Operator<SymmetricOp, SymmetricPlain>::kernel<autograd>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("symmetric_attention",
         &Operator<SymmetricOp, SymmetricPlain>::kernel<autocast<c10::DeviceType::CPU>>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("symmetric_attention",
         &Operator<SymmetricOp, SymmetricPlain>::kernel<autocast<c10::DeviceType::CUDA>>);
}

}  // namespace headloom
