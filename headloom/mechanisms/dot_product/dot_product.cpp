// Schemas of the operator and its two halves, argument checks, registration.
#include "headloom/mechanisms/dot_product/dot_product.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/dot_product/dot_product_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "dot_product_attention";
using Halves = DotProductHalves;
using Gradients = DotProductGradients;

#define HEADLOOM_DOT_PRODUCT_OPTIONS                                               \
  const OptionalTensor &bias, const OptionalTensor &key_padding_mask, bool causal, \
      std::optional<double> scale, double dropout_p, const OptionalTensor &seed,   \
      const OptionalTensor &cu_seqlens_q, const OptionalTensor &cu_seqlens_k
#define HEADLOOM_DOT_PRODUCT_CALL                                                      \
  DotProductCall {                                                                     \
    bias, key_padding_mask, causal, scale, dropout_p, seed, cu_seqlens_q, cu_seqlens_k \
  }

Halves forward_kernel(const Tensor& q, const Tensor& k, const Tensor& v,
                      HEADLOOM_DOT_PRODUCT_OPTIONS, bool bias_gradient) {
  const DotProductCall call = HEADLOOM_DOT_PRODUCT_CALL;
  check_dot_product(q, k, v, call);
  return dot_product_forward(q, k, v, call, bias_gradient);
}

Gradients backward_kernel(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& out, const Tensor& log_sum_exp,
                          HEADLOOM_DOT_PRODUCT_OPTIONS, bool bias_gradient) {
  return dot_product_backward(grad_out, q, k, v, out, log_sum_exp, HEADLOOM_DOT_PRODUCT_CALL,
                              bias_gradient);
}

Tensor plain_kernel(const Tensor& q, const Tensor& k, const Tensor& v,
                    HEADLOOM_DOT_PRODUCT_OPTIONS) {
  return std::get<0>(call_dot_product_forward(q, k, v, HEADLOOM_DOT_PRODUCT_CALL, false));
}

Halves forward_meta(const Tensor& q, const Tensor& k, const Tensor& v, HEADLOOM_DOT_PRODUCT_OPTIONS,
                    bool) {
  check_dot_product(q, k, v, HEADLOOM_DOT_PRODUCT_CALL);
  return {
      at::empty_symint({q.sym_size(0), q.sym_size(1), q.sym_size(2), v.sym_size(3)}, q.options()),
      at::empty_symint({q.sym_size(0), q.sym_size(1), q.sym_size(2)},
                       q.options().dtype(dot_product_accumulation_type(q)))};
}

Gradients backward_meta(const Tensor&, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor&, const Tensor&, HEADLOOM_DOT_PRODUCT_OPTIONS,
                        bool bias_gradient) {
  (void)HEADLOOM_DOT_PRODUCT_CALL;
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint(k.sym_sizes(), k.options()),
          at::empty_symint(v.sym_sizes(), v.options()),
          bias_gradient ? at::empty_symint(bias->sym_sizes(), bias->options()) : or_empty({}, q)};
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
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("headloom::dot_product_attention", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const Tensor&,
                                           HEADLOOM_DOT_PRODUCT_OPTIONS)>();
  OptionalTensor seed = options.seed;
  if (options.dropout_p > 0.0 && !seed) seed = new_seed();
  return op.call(q, k, v, options.bias, options.key_padding_mask, options.causal, options.scale,
                 options.dropout_p, seed, options.cu_seqlens_q, options.cu_seqlens_k);
}

Halves call_dot_product_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                const DotProductCall& call, bool bias_gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("headloom::dot_product_attention_forward", "")
                             .typed<Halves(const Tensor&, const Tensor&, const Tensor&,
                                           HEADLOOM_DOT_PRODUCT_OPTIONS, bool)>();
  return op.call(q, k, v, call.bias, call.key_padding_mask, call.causal, call.scale, call.dropout_p,
                 call.seed, call.cu_seqlens_q, call.cu_seqlens_k, bias_gradient);
}

Gradients call_dot_product_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                    const Tensor& v, const Tensor& out, const Tensor& log_sum_exp,
                                    const DotProductCall& call, bool bias_gradient) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("headloom::dot_product_attention_backward", "")
          .typed<Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&, const Tensor&, HEADLOOM_DOT_PRODUCT_OPTIONS, bool)>();
  return op.call(grad_out, q, k, v, out, log_sum_exp, call.bias, call.key_padding_mask, call.causal,
                 call.scale, call.dropout_p, call.seed, call.cu_seqlens_q, call.cu_seqlens_k,
                 bias_gradient);
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
         ", bool bias_gradient=False) -> (Tensor, Tensor)");
  define(
      "dot_product_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor log_sum_exp, " +
      options + ", bool bias_gradient=False) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  m.impl("dot_product_attention", plain_kernel);
  m.impl("dot_product_attention_forward", forward_kernel);
  m.impl("dot_product_attention_backward", backward_kernel);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  m.impl("dot_product_attention", plain_kernel);
  m.impl("dot_product_attention_forward", forward_kernel);
  m.impl("dot_product_attention_backward", backward_kernel);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl("dot_product_attention", plain_kernel);
  m.impl("dot_product_attention_forward", forward_meta);
  m.impl("dot_product_attention_backward", backward_meta);
}

}  // namespace headloom
