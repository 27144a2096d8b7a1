// The processor's path: tensors as the plain structs of the fused kernels.
#include <ATen/ATen.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/base/rng.h"
#include "headloom/mechanisms/talking_heads/talking_heads_dispatch.h"
#include "headloom/mechanisms/talking_heads/talking_heads_driver.h"
#include "headloom/mechanisms/talking_heads/talking_heads_segments.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using namespace headloom::kernels;

template <class S>
S* data(const Tensor& tensor) {
  return static_cast<S*>(tensor.data_ptr());
}

template <class S>
HeadRows<S> rows_of(const Tensor& x) {
  return {data<std::remove_const_t<S>>(x), x.stride(0), x.stride(1), x.stride(2)};
}

Tensor with_dense_rows(const Tensor& x) {
  return x.stride(3) == 1 ? x : x.contiguous();
}

// A bias-shaped tensor seen as [B, H, Tq, Tk].
template <class S>
HeadBias<S> bias_of(const Tensor& bias) {
  Tensor whole = bias;
  while (whole.dim() < 4) whole = whole.unsqueeze(0);
  const auto stride = [&](int64_t axis) { return whole.size(axis) == 1 ? 0 : whole.stride(axis); };
  return {data<std::remove_const_t<S>>(whole), stride(0), stride(1), stride(2), stride(3)};
}

// The arguments of one call, and the tensors that they point into.
template <class S>
class FusedCall {
 public:
  FusedCall(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call)
      : segments(attention_segments(q, k, call)) {
    const TalkingHeadsSizes sizes(k, v, call);
    args.key_heads = sizes.key_heads;
    args.heads = sizes.heads;
    args.value_heads = sizes.value_heads;
    args.queries = q.size(2);
    args.keys = k.size(2);
    args.key_width = q.size(3);
    args.value_width = v.size(3);
    args.q = rows_of<const S>(keep(with_dense_rows(q)));
    args.k = rows_of<const S>(keep(with_dense_rows(k)));
    args.v = rows_of<const S>(keep(with_dense_rows(v)));
    args.logits = mixing(sizes.logits_groups, sizes.key_heads, sizes.heads, call.logits_proj,
                         call.x2l, call.m2l);
    args.weights = mixing(sizes.weights_groups, sizes.heads, sizes.value_heads, call.weights_proj,
                          call.x2w, call.m2w);
    if (call.bias) args.bias = bias_of<const S>(keep(call.bias->contiguous()));
    args.relative_bias = dense(call.relative_bias);
    if (call.relative_bias && call.relative_bias->size(0) > 1) {
      args.relative_head_stride = call.relative_bias->size(1);
    }
    if (call.key_padding_mask) {
      args.key_padding = data<bool>(keep(call.key_padding_mask->contiguous()));
    }
    args.causal = call.causal;
    args.scale = call.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
    if (call.dropout_p > 0.0) {
      args.dropout = call.dropout_site == "per_key"      ? DropoutSite::kPerKey
                     : call.dropout_site == "before_mix" ? DropoutSite::kBeforeMix
                                                         : DropoutSite::kAfterMix;
      args.drop_threshold = drop_threshold(call.dropout_p);
      args.kept = 1.0 / (1.0 - call.dropout_p);
    }
  }

  TalkingHeadsArgs<S> args;
  std::vector<AttentionSegment> segments;

 private:
  const Tensor& keep(const Tensor& tensor) {
    held_.push_back(std::make_unique<Tensor>(tensor));
    return *held_.back();
  }
  const S* dense(const OptionalTensor& tensor) {
    return tensor ? data<S>(keep(tensor->contiguous())) : nullptr;
  }
  HeadMixing<S> mixing(int64_t groups, int64_t in, int64_t out, const OptionalTensor& projection,
                       const OptionalTensor& by_query, const OptionalTensor& by_key) {
    return {groups, in / groups, out / groups, dense(projection), dense(by_query), dense(by_key)};
  }

  std::vector<std::unique_ptr<Tensor>> held_;
};

// Memory for the workers, in the accumulator's type.
Tensor workspace(int64_t elements, const Tensor& like) {
  return at::empty({elements}, like.options().dtype(accumulation_type(like)));
}

// The gradients of all inputs: where kernels write them, in the types they write.
template <class S>
class GradientTensors {
 public:
  using T = accumulator_t<S>;

  GradientTensors(const std::vector<Tensor>& inputs, const TalkingHeadsWanted& wanted)
      : gradients(inputs.size()) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      // The kernels compute what all inputs but the biases get in any case.
      const bool is_bias = i == kBiasInput || i == kRelativeBiasInput;
      if (!inputs[i].defined() || (is_bias && !wanted[i])) continue;
      const bool wide = is_bias || i == kLogitsProj || i == kWeightsProj;
      gradients[i] = at::empty(
          inputs[i].sizes(),
          inputs[i].options().dtype(wide ? accumulation_type(inputs[i]) : inputs[i].scalar_type()));
    }
    if (gradients[kBiasInput].defined()) gradients[kBiasInput].zero_();
  }

  template <class Element>
  Element* at(size_t i) const {
    return gradients[i].defined() ? data<Element>(gradients[i]) : nullptr;
  }
  TalkingHeadsTotals<S> totals() const {
    TalkingHeadsTotals<S> totals;
    totals.logits = at<T>(kLogitsProj);
    totals.weights = at<T>(kWeightsProj);
    totals.relative_bias = at<T>(kRelativeBiasInput);
    if (gradients[kBiasInput].defined()) {
      totals.bias = bias_of<T>(gradients[kBiasInput]);
      totals.bias_size = gradients[kBiasInput].numel();
    }
    return totals;
  }
  TalkingHeadsGradients<S> of_queries(const Tensor& grad_out, const Tensor& log2_sums) const {
    return {rows_of<const S>(grad_out), data<T>(log2_sums), rows_of<S>(gradients[0]), at<S>(kX2l),
            at<S>(kX2w)};
  }
  TalkingHeadsKeyGradients<S> of_keys() const {
    return {rows_of<S>(gradients[1]), rows_of<S>(gradients[2]), at<S>(kM2l), at<S>(kM2w)};
  }

  std::vector<Tensor> gradients;

 private:
  static constexpr size_t kLogitsProj = 3, kWeightsProj = 4, kX2l = 5, kM2l = 6, kX2w = 7, kM2w = 8;
};

}  // namespace

TalkingHeadsHalves fused_talking_heads(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const TalkingHeadsCall& call, bool sums,
                                       const TalkingHeadsTuning& tuning) {
  return dispatch_kernel_type(
      q.scalar_type(), "talking_heads_attention", [&](auto tag) -> TalkingHeadsHalves {
        using S = typename decltype(tag)::type;
        using T = accumulator_t<S>;
        const FusedCall<S> fused(q, k, v, call);
        const Tensor out = at::empty({q.size(0), v.size(1), q.size(2), v.size(3)}, q.options());
        const Tensor log2_sums = sums ? at::empty({q.size(0), fused.args.heads, q.size(2)},
                                                  q.options().dtype(accumulation_type(q)))
                                      : Tensor();
        const Isa isa = active_isa();
        const TalkingHeadsRun run =
            plan_talking_heads_forward(fused.args, fused.segments, tuning, isa, thread_count());
        const Tensor memory = workspace(run.elements(), q);
        talking_heads_forward<S>(fused.args, fused.segments, run, isa,
                                 {rows_of<S>(out), sums ? data<T>(log2_sums) : nullptr},
                                 data<T>(memory));
        return {out, log2_sums};
      });
}

std::vector<Tensor> fused_talking_heads_backward(const Tensor& grad_out, const Tensor& q,
                                                 const Tensor& k, const Tensor& v,
                                                 const Tensor& log2_sums,
                                                 const TalkingHeadsWanted& wanted,
                                                 const TalkingHeadsCall& call,
                                                 const TalkingHeadsTuning& tuning) {
  return dispatch_kernel_type(q.scalar_type(), "talking_heads_attention", [&](auto tag) {
    using S = typename decltype(tag)::type;
    using T = accumulator_t<S>;
    const FusedCall<S> fused(q, k, v, call);
    const std::vector<Tensor> inputs = talking_heads_inputs(q, k, v, call);
    GradientTensors<S> to(inputs, wanted);
    const TalkingHeadsTotals<S> totals = to.totals();
    const Tensor dense_grad = with_dense_rows(grad_out), dense_sums = log2_sums.contiguous();
    const Isa isa = active_isa();
    const TalkingHeadsRun run = plan_talking_heads_backward(fused.args, fused.segments, totals,
                                                            tuning, isa, thread_count());
    const Tensor memory = workspace(run.elements(), q);
    const Tensor doubles = at::empty({run.doubles()}, q.options().dtype(at::kDouble));
    talking_heads_backward<S>({fused.args, fused.segments, run, isa,
                               to.of_queries(dense_grad, dense_sums), to.of_keys(), totals,
                               data<T>(memory), data<double>(doubles)});
    for (size_t i = 0; i < inputs.size(); ++i) {
      to.gradients[i] = wanted[i] ? to.gradients[i].to(inputs[i].scalar_type()) : or_empty({}, q);
    }
    return to.gradients;
  });
}

}  // namespace headloom
