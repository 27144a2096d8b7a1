#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

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

// y[b, t] = sum_k weights[b, t, h, k] window[b, t + k] for weights that are normalised already, [B,
// n, H, K], over window [B, n + K - 1, C] -> [B, n, C].
at::Tensor conv_over_window(const at::Tensor& window, const at::Tensor& weights);

// "shared" or "per_position" as a flag; refuses other names.
bool is_per_position(const char* op, std::string_view dropconnect);

// An operator states its keyword arguments once: read() turns them into a call, and its signature
// is that of the schema; write() passes the call's fields in the same order.
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

// Calls through torch's dispatcher, for either operator.
template <class Op, class Read = decltype(&Op::read)>
struct ConvDispatcher;

template <class Op, class... Options>
struct ConvDispatcher<Op, ConvCall (*)(Options...)> {
  static at::Tensor call(const at::Tensor& x, const at::Tensor& weight, const ConvCall& given) {
    static const auto op =
        find(Op::kName)
            .template typed<at::Tensor(const at::Tensor&, const at::Tensor&, Options...)>();
    return Op::write(given, [&](const auto&... options) { return op.call(x, weight, options...); });
  }

  static ConvGradients backward(const at::Tensor& grad_out, const at::Tensor& x,
                                const at::Tensor& weight, Wanted wanted, const ConvCall& given) {
    static const auto op =
        find(Op::kBackwardName)
            .template typed<ConvGradients(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                          Wanted, Options...)>();
    return Op::write(given, [&](const auto&... options) {
      return op.call(grad_out, x, weight, wanted, options...);
    });
  }

 private:
  static c10::OperatorHandle find(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(
        (std::string("headloom::") + name).c_str(), "");
  }
};

}  // namespace headloom
