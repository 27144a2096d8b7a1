// Autograd and autocast of talking_heads_attention.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "headloom/mechanisms/talking_heads/talking_heads_dispatch.h"
#include "headloom/tensor/autocast.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Which inputs need a gradient; autograd counts those that were given.
TalkingHeadsWanted wanted_of(AutogradContext* ctx, const variable_list& inputs) {
  TalkingHeadsWanted wanted{};
  size_t given = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].defined()) wanted[i] = ctx->needs_input_grad(given++);
  }
  return wanted;
}

// Saved: the inputs and the sums of the softmax, all O(T); the weights are computed again.
struct TalkingHeadsFunction : torch::autograd::Function<TalkingHeadsFunction> {
  // Tensors come apart from `call`, where autograd would not see them.
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const OptionalTensor& logits_proj, const OptionalTensor& weights_proj,
                        const OptionalTensor& x2l, const OptionalTensor& m2l,
                        const OptionalTensor& x2w, const OptionalTensor& m2w,
                        const OptionalTensor& bias, const OptionalTensor& relative_bias,
                        TalkingHeadsCall call) {
    call.logits_proj = logits_proj;
    call.weights_proj = weights_proj;
    call.x2l = x2l;
    call.m2l = m2l;
    call.x2w = x2w;
    call.m2w = m2w;
    call.bias = bias;
    call.relative_bias = relative_bias;
    const at::AutoDispatchBelowADInplaceOrView below;
    static const Operator<TalkingHeadsOp, TalkingHeadsForwardHalf> op(
        "talking_heads_attention_forward");
    const auto [out, log2_sums] = op(q, k, v, call);
    variable_list saved = talking_heads_inputs(q, k, v, call);
    for (const OptionalTensor& other :
         {call.key_padding_mask, call.seed, call.cu_seqlens_q, call.cu_seqlens_k}) {
      saved.push_back(value_or_undefined(other));
    }
    saved.push_back(log2_sums);
    ctx->save_for_backward(saved);
    ctx->saved_data["causal"] = call.causal;
    ctx->saved_data["scale"] = call.scale;
    ctx->saved_data["dropout_p"] = call.dropout_p;
    ctx->saved_data["dropout_site"] = call.dropout_site;
    return out;
  }

  static TalkingHeadsCall restore(AutogradContext* ctx, const variable_list& saved) {
    TalkingHeadsCall call;
    call.key_padding_mask = as_optional(saved[kTalkingHeadsInputs]);
    call.seed = as_optional(saved[kTalkingHeadsInputs + 1]);
    call.cu_seqlens_q = as_optional(saved[kTalkingHeadsInputs + 2]);
    call.cu_seqlens_k = as_optional(saved[kTalkingHeadsInputs + 3]);
    call.causal = ctx->saved_data["causal"].toBool();
    call.scale = ctx->saved_data["scale"].toOptional<double>();
    call.dropout_p = ctx->saved_data["dropout_p"].toDouble();
    call.dropout_site = ctx->saved_data["dropout_site"].toStringRef();
    return call;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const NoLowering wide;
    const variable_list saved = ctx->get_saved_variables();
    const variable_list inputs(saved.begin(), saved.begin() + kTalkingHeadsInputs);
    const TalkingHeadsCall call = with_inputs(restore(ctx, saved), inputs);
    const TalkingHeadsWanted wanted = wanted_of(ctx, inputs);
    variable_list result(kTalkingHeadsInputs + 1);
    variable_list graph = inputs;
    graph.push_back(grads[0]);
    if (needs_graph(graph)) {
      const auto found = gradients_of(
          [&](const std::vector<Tensor>& x) { return talking_heads_composite(x, call); }, inputs,
          std::vector<bool>(wanted.begin(), wanted.end()), grads[0], /*create_graph=*/true);
      std::copy(found.begin(), found.end(), result.begin());
      return result;
    }
    static const Operator<TalkingHeadsOp, TalkingHeadsBackwardHalf> op(
        "talking_heads_attention_backward");
    const auto found = op(grads[0], inputs[0], inputs[1], inputs[2], saved.back(), wanted, call);
    for (size_t i = 0; i < found.size(); ++i) result[i] = or_undefined(found[i], wanted[i]);
    return result;
  }
};

Tensor autograd(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call) {
  TalkingHeadsCall rest = with_inputs(call, std::vector<Tensor>(kTalkingHeadsInputs));
  return TalkingHeadsFunction::apply(q, k, v, call.logits_proj, call.weights_proj, call.x2l,
                                     call.m2l, call.x2w, call.m2w, call.bias, call.relative_bias,
                                     rest);
}

template <c10::DeviceType device>
Tensor autocast(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call) {
  const Lowering<device> lower;
  std::vector<Tensor> inputs = talking_heads_inputs(q, k, v, call);
  for (Tensor& input : inputs) {
    if (input.defined()) input = lower(input);
  }
  static const Operator<TalkingHeadsOp, TalkingHeadsPlain> op("talking_heads_attention");
  return op(inputs[0], inputs[1], inputs[2], with_inputs(call, inputs));
}

}  // namespace

TORCH_LIBRARY_IMPL(headloom, Autograd, m) {
  m.impl("talking_heads_attention", &Operator<TalkingHeadsOp, TalkingHeadsPlain>::kernel<autograd>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCPU, m) {
  m.impl("talking_heads_attention",
         &Operator<TalkingHeadsOp, TalkingHeadsPlain>::kernel<autocast<c10::DeviceType::CPU>>);
}

TORCH_LIBRARY_IMPL(headloom, AutocastCUDA, m) {
  m.impl("talking_heads_attention",
         &Operator<TalkingHeadsOp, TalkingHeadsPlain>::kernel<autocast<c10::DeviceType::CUDA>>);
}

}  // namespace headloom
