// Schemas of the operator and its two halves, argument checks, registration.
#include "headloom/mechanisms/dot_product/dot_product.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kOp = "dot_product_attention";
using Halves = DotProductHalves;
using Gradients = DotProductGradients;

Tensor plain(const Tensor& q, const Tensor& k, const Tensor& v, const DotProductCall& call) {
  return std::get<0>(call_dot_product_forward(q, k, v, call));
}

Halves forward(const Tensor& q, const Tensor& k, const Tensor& v, const DotProductCall& call) {
  check_dot_product(q, k, v, call);
  return dot_product_forward(q, k, v, call);
}

Halves forward_meta(const Tensor& q, const Tensor& k, const Tensor& v, const DotProductCall& call) {
  check_dot_product(q, k, v, call);
  return {
      at::empty_symint({q.sym_size(0), q.sym_size(1), q.sym_size(2), v.sym_size(3)}, q.options()),
      at::empty_symint({q.sym_size(0), q.sym_size(1), q.sym_size(2)},
                       q.options().dtype(accumulation_type(q)))};
}

Gradients backward_meta(const Tensor&, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor&, const Tensor&, bool bias_gradient,
                        const DotProductCall& call) {
  const auto like = [](const Tensor& x) { return at::empty_symint(x.sym_sizes(), x.options()); };
  return {like(q), like(k), like(v), bias_gradient ? like(*call.bias) : or_empty({}, q)};
}

constexpr auto kPlain = &Operator<DotProductOp, DotProductPlain>::kernel<plain>;

void implement(torch::Library& m) {
  m.impl(kOp, kPlain);
  m.impl("dot_product_attention_forward",
         &Operator<DotProductOp, DotProductForward>::kernel<forward>);
  m.impl("dot_product_attention_backward",
         &Operator<DotProductOp, DotProductBackward>::kernel<dot_product_backward>);
}

}  // namespace

void check_dot_product(const Tensor& q, const Tensor& k, const Tensor& v,
                       const DotProductCall& call) {
  Contract args(kOp);
  args.floating("q", q, {"B", "H", "Tq", "D"})
      .same("k", k, {"B", "H", "Tk", "D"})
      .same("v", v, {"B", "H", "Tk", "Dv"})
      .mask("key_padding_mask", call.key_padding_mask, {"B", "Tk"})
      .boundaries("cu_seqlens_q", call.cu_seqlens_q)
      .boundaries("cu_seqlens_k", call.cu_seqlens_k)
      .probability("dropout_p", call.dropout_p)
      .seed(call.seed, call.dropout_p > 0.0);
  const bool packed = call.cu_seqlens_q.has_value();
  args.require(packed == call.cu_seqlens_k.has_value(), "both of cu_seqlens_q and cu_seqlens_k",
               "one of them");
  if (packed) {
    args.require(args.sym("B") == 1, "B = 1 with cu_seqlens", cat("B = ", args.sym("B")),
                 "Concatenate the sequences along time.");
    args.require(!call.bias, "no bias with cu_seqlens", "a bias");
  }
  if (call.bias) {
    const auto sizes = call.bias->sym_sizes();
    const std::vector<c10::SymInt> whole{args.sym("B"), args.sym("H"), args.sym("Tq"),
                                         args.sym("Tk")};
    bool broadcasts = sizes.size() <= 4;
    for (size_t i = 0; broadcasts && i < sizes.size(); ++i) {
      const c10::SymInt& size = sizes[sizes.size() - 1 - i];
      broadcasts = size == 1 || size == whole[3 - i];
    }
    args.require(broadcasts,
                 cat("bias to broadcast to [B, H, Tq, Tk] = ", c10::SymIntArrayRef(whole)),
                 cat("shape ", sizes));
    args.require(call.bias->scalar_type() == q.scalar_type(),
                 cat("bias of the dtype of q, ", q.scalar_type()), cat(call.bias->scalar_type()));
  }
}

Tensor dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                             const DotProductOptions& options) {
  DotProductCall call{options.bias,         options.key_padding_mask, options.causal,
                      options.scale,        options.dropout_p,        options.seed,
                      options.cu_seqlens_q, options.cu_seqlens_k};
  if (call.dropout_p > 0.0 && !call.seed) call.seed = new_seed();
  static const Operator<DotProductOp, DotProductPlain> op(kOp);
  return op(q, k, v, call);
}

Halves call_dot_product_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                const DotProductCall& call) {
  static const Operator<DotProductOp, DotProductForward> op("dot_product_attention_forward");
  return op(q, k, v, call);
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  const std::string options =
      "*, Tensor? bias=None, Tensor? key_padding_mask=None, bool causal=False, float? scale=None, "
      "float dropout_p=0.0, Tensor? seed=None, Tensor? cu_seqlens_q=None, Tensor? "
      "cu_seqlens_k=None";
  const auto define = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  define("dot_product_attention(Tensor q, Tensor k, Tensor v, " + options + ") -> Tensor");
  define("dot_product_attention_forward(Tensor q, Tensor k, Tensor v, " + options +
         ") -> (Tensor, Tensor)");
  define(
      "dot_product_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor log2_sum, bool bias_gradient, " +
      options + ") -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl(kOp, kPlain);
  m.impl("dot_product_attention_forward",
         &Operator<DotProductOp, DotProductForward>::kernel<forward_meta>);
  m.impl("dot_product_attention_backward",
         &Operator<DotProductOp, DotProductBackward>::kernel<backward_meta>);
}

}  // namespace headloom
