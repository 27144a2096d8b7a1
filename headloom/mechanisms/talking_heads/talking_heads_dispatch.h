#pragma once

#include <array>
#include <string_view>
#include <tuple>
#include <vector>

#include "headloom/mechanisms/talking_heads/talking_heads.h"
#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"
#include "headloom/tensor/operator.h"

// How the public operator, its forward and backward halves and autograd see one call. Letters as in
// talking_heads.h.
namespace headloom {

// Everything but q, k and v.
using TalkingHeadsCall = TalkingHeadsOptions;

// The arguments of the schema after v (tensor/operator.h).
struct TalkingHeadsOp {
  using OptionalTensor = std::optional<at::Tensor>;

  static TalkingHeadsCall read(
      const OptionalTensor& logits_proj, const OptionalTensor& weights_proj,
      const OptionalTensor& x2l, const OptionalTensor& m2l, const OptionalTensor& x2w,
      const OptionalTensor& m2w, const OptionalTensor& bias, const OptionalTensor& relative_bias,
      const OptionalTensor& key_padding_mask, bool causal, std::optional<double> scale,
      double dropout_p, std::string_view dropout_site, const OptionalTensor& seed,
      const OptionalTensor& cu_seqlens_q, const OptionalTensor& cu_seqlens_k) {
    return {logits_proj,
            weights_proj,
            x2l,
            m2l,
            x2w,
            m2w,
            bias,
            relative_bias,
            key_padding_mask,
            causal,
            scale,
            dropout_p,
            std::string(dropout_site),
            seed,
            cu_seqlens_q,
            cu_seqlens_k};
  }
  template <class Receiver>
  static auto write(const TalkingHeadsCall& call, const Receiver& receive) {
    return receive(call.logits_proj, call.weights_proj, call.x2l, call.m2l, call.x2w, call.m2w,
                   call.bias, call.relative_bias, call.key_padding_mask, call.causal, call.scale,
                   call.dropout_p, std::string_view(call.dropout_site), call.seed,
                   call.cu_seqlens_q, call.cu_seqlens_k);
  }
};

// The differentiable arguments: q, k, v, logits_proj, weights_proj, x2l, m2l, x2w, m2w, bias,
// relative_bias. Undefined where not given.
inline constexpr size_t kTalkingHeadsInputs = 11, kBiasInput = 9, kRelativeBiasInput = 10;
std::vector<at::Tensor> talking_heads_inputs(const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& v, const TalkingHeadsCall& call);
// The call with these in place of its own; q, k and v are left out.
TalkingHeadsCall with_inputs(TalkingHeadsCall call, const std::vector<at::Tensor>& inputs);

// Which of them get a gradient.
using TalkingHeadsWanted = std::array<bool, kTalkingHeadsInputs>;

// Heads and groups as the arguments state them; good for checked arguments.
struct TalkingHeadsSizes {
  int64_t key_heads, heads, value_heads, logits_groups, weights_groups;
  TalkingHeadsSizes(const at::Tensor& k, const at::Tensor& v, const TalkingHeadsCall& call);
};

// Refuses bad arguments. Sizes may be symbolic.
void check_talking_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const TalkingHeadsCall& call);

// O and, for the backward pass, log2 of the sum of 2^(logit log2 e) [B, H, Tq], -inf where there is
// nothing to attend.
using TalkingHeadsHalves = std::tuple<at::Tensor, at::Tensor>;

// The arguments of the operator and of its two halves before those of TalkingHeadsOp.
using TalkingHeadsPlain = at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
using TalkingHeadsForwardHalf = TalkingHeadsHalves(const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v);
// Gradients in the order of the inputs, empty where not wanted.
using TalkingHeadsBackwardHalf = std::vector<at::Tensor>(const at::Tensor& grad_out,
                                                         const at::Tensor& q, const at::Tensor& k,
                                                         const at::Tensor& v,
                                                         const at::Tensor& log2_sums,
                                                         TalkingHeadsWanted wanted);

// The fused kernels of the processor. `sums`: whether log2_sums is wanted, else it is undefined.
TalkingHeadsHalves fused_talking_heads(const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const TalkingHeadsCall& call, bool sums,
                                       const kernels::TalkingHeadsTuning& tuning = {});
std::vector<at::Tensor> fused_talking_heads_backward(
    const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& log2_sums, const TalkingHeadsWanted& wanted, const TalkingHeadsCall& call,
    const kernels::TalkingHeadsTuning& tuning = {});

// Every other device: tiles of queries through the reference, in float32 at least.
TalkingHeadsHalves tiled_talking_heads(const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const TalkingHeadsCall& call);
std::vector<at::Tensor> tiled_talking_heads_backward(const at::Tensor& grad_out,
                                                     const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v,
                                                     const TalkingHeadsWanted& wanted,
                                                     const TalkingHeadsCall& call);

// The whole call through the reference, for derivatives of derivatives: O(Tq Tk) memory.
at::Tensor talking_heads_composite(const std::vector<at::Tensor>& inputs,
                                   const TalkingHeadsCall& call);

}  // namespace headloom
