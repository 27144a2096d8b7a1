#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "headloom/tensor/operator.h"

// How the two public operators, their backward halves and autograd see one call. Both are one
// computation: `weight` is [H, K] in light_conv and [B, T, H, K] in dynamic_conv.
namespace headloom {

struct ConvCall {
  const char* op;
  int64_t padding;  // P
  bool weight_softmax = true;
  bool renorm_padding = false;
  std::optional<at::Tensor> conv_bias = {}, key_padding_mask = {}, cu_seqlens = {};
  double weight_dropout = 0.0;
  bool per_position = false;  // the granularity of DropConnect
  std::optional<at::Tensor> seed = {};
};

constexpr int64_t kMaxKernelSize = 1023;

// Gradients of x, weight and conv_bias; empty [0] where not wanted.
using ConvGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Wanted = std::array<bool, 3>;

// Refuses bad arguments. Sizes may be symbolic.
void check_conv(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call);

// The kernels, on any device.
at::Tensor conv_forward(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call);
ConvGradients conv_backward(const at::Tensor& grad_out, const at::Tensor& x,
                            const at::Tensor& weight, Wanted wanted, const ConvCall& call);

// "shared" or "per_position" as a flag; refuses other names.
bool is_per_position(const char* op, std::string_view dropconnect);

// The keyword arguments of each schema (tensor/operator.h).
struct LightConvOp {
  static constexpr const char* kName = "light_conv";
  static constexpr const char* kBackwardName = "light_conv_backward";
  static ConvCall read(int64_t padding, bool weight_softmax,
                       const std::optional<at::Tensor>& conv_bias,
                       const std::optional<at::Tensor>& key_padding_mask,
                       const std::optional<at::Tensor>& cu_seqlens, double weight_dropout,
                       std::string_view dropconnect, const std::optional<at::Tensor>& seed) {
    return {kName,      padding,        weight_softmax,
            false,      conv_bias,      key_padding_mask,
            cu_seqlens, weight_dropout, is_per_position(kName, dropconnect),
            seed};
  }
  template <class Receiver>
  static auto write(const ConvCall& call, const Receiver& receive) {
    return receive(call.padding, call.weight_softmax, call.conv_bias, call.key_padding_mask,
                   call.cu_seqlens, call.weight_dropout,
                   call.per_position ? "per_position" : "shared", call.seed);
  }
};

struct DynamicConvOp {
  static constexpr const char* kName = "dynamic_conv";
  static constexpr const char* kBackwardName = "dynamic_conv_backward";
  static ConvCall read(int64_t padding, bool weight_softmax, bool renorm_padding,
                       const std::optional<at::Tensor>& conv_bias,
                       const std::optional<at::Tensor>& key_padding_mask,
                       const std::optional<at::Tensor>& cu_seqlens, double weight_dropout,
                       const std::optional<at::Tensor>& seed) {
    return {kName,          padding,
            weight_softmax, renorm_padding,
            conv_bias,      key_padding_mask,
            cu_seqlens,     weight_dropout,
            true,           seed};
  }
  template <class Receiver>
  static auto write(const ConvCall& call, const Receiver& receive) {
    return receive(call.padding, call.weight_softmax, call.renorm_padding, call.conv_bias,
                   call.key_padding_mask, call.cu_seqlens, call.weight_dropout, call.seed);
  }
};

// The positional arguments of either operator and of its backward half.
using ConvForward = at::Tensor(const at::Tensor& x, const at::Tensor& weight);
using ConvBackward = ConvGradients(const at::Tensor& grad_out, const at::Tensor& x,
                                   const at::Tensor& weight, Wanted wanted);

// Through torch's dispatcher.
template <class Op>
at::Tensor call_conv(const at::Tensor& x, const at::Tensor& weight, const ConvCall& call) {
  static const Operator<Op, ConvForward> op(Op::kName);
  return op(x, weight, call);
}
template <class Op>
ConvGradients call_conv_backward(const at::Tensor& grad_out, const at::Tensor& x,
                                 const at::Tensor& weight, Wanted wanted, const ConvCall& call) {
  static const Operator<Op, ConvBackward> op(Op::kBackwardName);
  return op(grad_out, x, weight, wanted, call);
}

}  // namespace headloom
