// Autograd and autocast of both convolutions.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const ConvCall& call) {
  ctx->save_for_backward({x, weight, value_or_undefined(call.conv_bias),
                          value_or_undefined(call.key_padding_mask),
                          value_or_undefined(call.cu_seqlens), value_or_undefined(call.seed)});
  ctx->saved_data["padding"] = call.padding;
  ctx->saved_data["weight_softmax"] = call.weight_softmax;
  ctx->saved_data["renorm_padding"] = call.renorm_padding;
  ctx->saved_data["weight_dropout"] = call.weight_dropout;
  ctx->saved_data["per_position"] = call.per_position;
}

ConvCall restore(const char* op, AutogradContext* ctx, const variable_list& saved) {
  return {op,
          ctx->saved_data["padding"].toInt(),
          ctx->saved_data["weight_softmax"].toBool(),
          ctx->saved_data["renorm_padding"].toBool(),
          as_optional(saved[2]),
          as_optional(saved[3]),
          as_optional(saved[4]),
          ctx->saved_data["weight_dropout"].toDouble(),
          ctx->saved_data["per_position"].toBool(),
          as_optional(saved[5])};
}

// Saved: the inputs alone; the softmax and DropConnect are computed again.
template <class Op>
struct ConvFunction : torch::autograd::Function<ConvFunction<Op>> {
  // The bias comes apart from `call`, where autograd would not see it.
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const OptionalTensor& conv_bias, ConvCall call) {
    call.conv_bias = conv_bias;
    save(ctx, x, weight, call);
    const at::AutoDispatchBelowADInplaceOrView below;
    return call_conv<Op>(x, weight, call);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &conv_bias = saved[2];
    const ConvCall call = restore(Op::kName, ctx, saved);
    const Wanted wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                        conv_bias.defined() && ctx->needs_input_grad(2)};
    if (needs_graph({grads[0], x, weight, conv_bias})) {
      auto found = gradients_of(
          [&](const std::vector<Tensor>& inputs) {
            ConvCall with_bias = call;
            with_bias.conv_bias = as_optional(inputs[2]);
            return light_conv_reference(inputs[0], inputs[1], with_bias);
          },
          {x, weight, conv_bias}, {wanted[0], wanted[1], wanted[2]}, grads[0],
          /*create_graph=*/true);
      found.emplace_back();  // of the call
      return found;
    }
    const auto [grad_x, grad_weight, grad_bias] =
        call_conv_backward<Op>(grads[0], x, weight, wanted, call);
    return {or_undefined(grad_x, wanted[0]), or_undefined(grad_weight, wanted[1]),
            or_undefined(grad_bias, wanted[2]), Tensor()};
  }
};

template <class Op>
Tensor autograd(const Tensor& x, const Tensor& weight, const ConvCall& given) {
  ConvCall call = given;
  const OptionalTensor conv_bias = std::exchange(call.conv_bias, std::nullopt);
  return ConvFunction<Op>::apply(x, weight, conv_bias, call);
}

template <class Op, c10::DeviceType device>
Tensor autocast(const Tensor& x, const Tensor& weight, const ConvCall& given) {
  const Lowering<device> lower;
  ConvCall call = given;
  call.conv_bias = lower(call.conv_bias);
  return call_conv<Op>(lower(x), lower(weight), call);
}

template <c10::DeviceType device>
void implement_autocast(torch::Library& m) {
  m.impl(LightConvOp::kName,
         &Operator<LightConvOp, ConvForward>::kernel<autocast<LightConvOp, device>>);
  m.impl(DynamicConvOp::kName,
         &Operator<DynamicConvOp, ConvForward>::kernel<autocast<DynamicConvOp, device>>);
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl(LightConvOp::kName, &Operator<LightConvOp, ConvForward>::kernel<autograd<LightConvOp>>);
  m.impl(DynamicConvOp::kName,
         &Operator<DynamicConvOp, ConvForward>::kernel<autograd<DynamicConvOp>>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  implement_autocast<c10::DeviceType::CPU>(m);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  implement_autocast<c10::DeviceType::CUDA>(m);
}

}  // namespace headloom
