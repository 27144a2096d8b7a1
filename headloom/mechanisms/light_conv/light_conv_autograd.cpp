// Autograd and autocast of both convolutions.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "headloom/mechanisms/light_conv/light_conv_dispatch.h"
#include "headloom/mechanisms/light_conv/light_conv_reference.h"
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
    return ConvDispatcher<Op>::call(x, weight, call);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // A backward pass inside an autocast region must not lower the sums that the kernels keep wide.
    const c10::impl::ExcludeDispatchKeyGuard off(c10::autocast_dispatch_keyset);
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
        ConvDispatcher<Op>::backward(grads[0], x, weight, wanted, call);
    return {or_undefined(grad_x, wanted[0]), or_undefined(grad_weight, wanted[1]),
            or_undefined(grad_bias, wanted[2]), Tensor()};
  }
};

template <class Op, class Read = decltype(&Op::read)>
struct Wrappers;

template <class Op, class... Options>
struct Wrappers<Op, ConvCall (*)(Options...)> {
  static Tensor autograd(const Tensor& x, const Tensor& weight, Options... options) {
    ConvCall call = Op::read(options...);
    const OptionalTensor conv_bias = std::exchange(call.conv_bias, std::nullopt);
    return ConvFunction<Op>::apply(x, weight, conv_bias, call);
  }

  // Convolutions run in autocast's lower precision; sums inside stay in float32.
  template <c10::DeviceType device>
  static Tensor autocast(const Tensor& x, const Tensor& weight, Options... options) {
    const c10::impl::ExcludeDispatchKeyGuard off(
        c10::DispatchKeySet(at::autocast::get_autocast_dispatch_key_from_device_type(device)));
    const at::ScalarType type = at::autocast::get_autocast_dtype(device);
    const auto cast = [&](const Tensor& tensor) {
      return at::autocast::cached_cast(type, tensor, device);
    };
    ConvCall call = Op::read(options...);
    if (call.conv_bias) call.conv_bias = cast(*call.conv_bias);
    return ConvDispatcher<Op>::call(cast(x), cast(weight), call);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl(LightConvOp::kName, &Wrappers<LightConvOp>::autograd);
  m.impl(DynamicConvOp::kName, &Wrappers<DynamicConvOp>::autograd);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl(LightConvOp::kName, &Wrappers<LightConvOp>::autocast<c10::DeviceType::CPU>);
  m.impl(DynamicConvOp::kName, &Wrappers<DynamicConvOp>::autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl(LightConvOp::kName, &Wrappers<LightConvOp>::autocast<c10::DeviceType::CUDA>);
  m.impl(DynamicConvOp::kName, &Wrappers<DynamicConvOp>::autocast<c10::DeviceType::CUDA>);
}

}  // namespace headloom
