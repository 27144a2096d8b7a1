// Schemas of the operator and its two halves, argument checks, registration.
#include "headloom/mechanisms/symmetric/symmetric.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/symmetric/symmetric_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "symmetric_attention";
using Halves = SymmetricHalves;
using Gradients = SymmetricGradients;

Tensor plain(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
             const SymmetricCall& call) {
  static const Operator<SymmetricOp, SymmetricForward> op("symmetric_attention_forward");
  return std::get<0>(op(q, v, pairwise, call));
}

Halves forward(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
               const SymmetricCall& call) {
  check_symmetric(q, v, pairwise, call);
  return symmetric_forward(q, v, pairwise, call);
}

Halves forward_meta(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                    const SymmetricCall& call) {
  check_symmetric(q, v, pairwise, call);
  return {
      at::empty_symint({q.sym_size(0), v.sym_size(1), q.sym_size(2), v.sym_size(3)}, q.options()),
      at::empty_symint({q.sym_size(0), v.sym_size(1), q.sym_size(2)},
                       q.options().dtype(accumulation_type(q)))};
}

Gradients backward_meta(const Tensor&, const Tensor& q, const Tensor& v,
                        const OptionalTensor& pairwise, const Tensor&, const Tensor&,
                        bool bias_gradient, const SymmetricCall& call) {
  const auto like = [&](const OptionalTensor& x) {
    return x ? at::empty_symint(x->sym_sizes(), x->options()) : or_empty({}, q);
  };
  return {like(q), like(v), like(pairwise), like(call.k),
          bias_gradient ? like(call.bias) : or_empty({}, q)};
}

constexpr auto kPlain = &Operator<SymmetricOp, SymmetricPlain>::kernel<plain>;

void implement(torch::Library& m) {
  m.impl(kOp, kPlain);
  m.impl("symmetric_attention_forward", &Operator<SymmetricOp, SymmetricForward>::kernel<forward>);
  m.impl("symmetric_attention_backward",
         &Operator<SymmetricOp, SymmetricBackward>::kernel<symmetric_backward>);
}

void check_bias(Contract& args, const Tensor& q, const Tensor& bias, const c10::SymInt& keys) {
  const auto sizes = bias.sym_sizes();
  const std::vector<c10::SymInt> whole{args.sym("B"), args.sym("H"), args.sym("T"), keys};
  bool broadcasts = sizes.size() <= 4;
  for (size_t i = 0; broadcasts && i < sizes.size(); ++i) {
    const c10::SymInt& size = sizes[sizes.size() - 1 - i];
    broadcasts = size == 1 || size == whole[3 - i];
  }
  args.require(broadcasts, cat("bias to broadcast to [B, H, T, Tk] = ", c10::SymIntArrayRef(whole)),
               cat("shape ", sizes));
  args.require(bias.scalar_type() == q.scalar_type(),
               cat("bias of the dtype of q, ", q.scalar_type()), cat(bias.scalar_type()));
}

}  // namespace

void check_symmetric(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                     const SymmetricCall& call) {
  const char* keys = call.k ? "Tk" : "T";
  Contract args(kOp);
  args.floating("q", q, {"B", "Hq", "T", "D"})
      .same("k", call.k, {"B", "Hq", "Tk", "D"})
      .same("v", v, {"B", "H", keys, "Dv"})
      .same("pairwise", pairwise, {"H", "D", "D"})
      .mask("key_padding_mask", call.key_padding_mask, {"B", keys})
      .boundaries("cu_seqlens", call.cu_seqlens)
      .probability("dropout_p", call.dropout_p)
      .seed(call.seed, call.dropout_p > 0.0);
  const c10::SymInt shared = args.sym("Hq"), heads = args.sym("H");
  args.require(shared > 0 && heads % shared == 0, "the heads of q to divide those of v",
               cat("Hq = ", shared, ", H = ", heads));
  args.require(!call.symmetrize || pairwise.has_value(), "pairwise with symmetrize", "none",
               "Without coefficients scores are symmetric already.");
  if (call.cu_seqlens) {
    args.require(args.sym("B") == 1, "B = 1 with cu_seqlens", cat("B = ", args.sym("B")),
                 "Concatenate the sequences along time.");
    args.require(!call.bias, "no bias with cu_seqlens", "a bias");
    args.require(!call.k, "no k with cu_seqlens", "a k");
  }
  if (call.bias) check_bias(args, q, *call.bias, args.sym(keys));
}

Tensor symmetric_attention(const Tensor& q, const Tensor& v, const OptionalTensor& pairwise,
                           const SymmetricOptions& o) {
  SymmetricCall call{o.k,         o.bias, o.key_padding_mask, o.causal, o.cu_seqlens, o.scale,
                     o.dropout_p, o.seed, o.symmetrize};
  if (call.dropout_p > 0.0 && !call.seed) call.seed = new_seed();
  static const Operator<SymmetricOp, SymmetricPlain> op(kOp);
  return op(q, v, pairwise, call);
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  const std::string options =
      "*, Tensor? k=None, Tensor? bias=None, Tensor? key_padding_mask=None, bool causal=False, "
      "Tensor? cu_seqlens=None, float? scale=None, float dropout_p=0.0, Tensor? seed=None, "
      "bool symmetrize=False";
  const auto define = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  define("symmetric_attention(Tensor q, Tensor v, Tensor? pairwise=None, " + options +
         ") -> Tensor");
  define("symmetric_attention_forward(Tensor q, Tensor v, Tensor? pairwise, " + options +
         ") -> (Tensor, Tensor)");
  define(
      "symmetric_attention_backward(Tensor grad_out, Tensor q, Tensor v, Tensor? pairwise, Tensor "
      "out, Tensor log2_sum, bool bias_gradient, " +
      options + ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl(kOp, kPlain);
  m.impl("symmetric_attention_forward",
         &Operator<SymmetricOp, SymmetricForward>::kernel<forward_meta>);
  m.impl("symmetric_attention_backward",
         &Operator<SymmetricOp, SymmetricBackward>::kernel<backward_meta>);
}

}  // namespace headloom
