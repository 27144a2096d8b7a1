// Schemas of the operator and its two halves, argument checks, registration.
#include "headloom/mechanisms/talking_heads/talking_heads.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "headloom/base/check.h"
#include "headloom/mechanisms/talking_heads/talking_heads_dispatch.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Halves = TalkingHeadsHalves;
using Gradients = std::vector<Tensor>;

constexpr const char* kOp = "talking_heads_attention";

Tensor plain(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call) {
  check_talking_heads(q, k, v, call);
  return std::get<0>(q.device().is_cpu() ? fused_talking_heads(q, k, v, call, /*sums=*/false)
                                         : tiled_talking_heads(q, k, v, call));
}

Halves forward(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call) {
  check_talking_heads(q, k, v, call);
  return q.device().is_cpu() ? fused_talking_heads(q, k, v, call, /*sums=*/true)
                             : tiled_talking_heads(q, k, v, call);
}

Gradients backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Tensor& log2_sums, TalkingHeadsWanted wanted,
                   const TalkingHeadsCall& call) {
  check_talking_heads(q, k, v, call);
  return q.device().is_cpu()
             ? fused_talking_heads_backward(grad_out, q, k, v, log2_sums, wanted, call)
             : tiled_talking_heads_backward(grad_out, q, k, v, wanted, call);
}

// [K, H] as (1, K, H), [g, K / g, H / g] as it is.
std::array<c10::SymInt, 3> mix_sizes(const Tensor& projection) {
  const auto sizes = projection.sym_sizes();
  if (sizes.size() == 3) return {sizes[0], sizes[1], sizes[2]};
  return {1, sizes[0], sizes[1]};
}

// The heads that leave a mix of `heads`.
c10::SymInt heads_after(const OptionalTensor& projection, const c10::SymInt& heads) {
  if (!projection) return heads;
  const auto sizes = mix_sizes(*projection);
  return sizes[0] * sizes[2];
}

Halves forward_meta(const Tensor& q, const Tensor& k, const Tensor& v,
                    const TalkingHeadsCall& call) {
  check_talking_heads(q, k, v, call);
  const c10::SymInt heads = heads_after(call.logits_proj, q.sym_size(1));
  return {
      at::empty_symint({q.sym_size(0), v.sym_size(1), q.sym_size(2), v.sym_size(3)}, q.options()),
      at::empty_symint({q.sym_size(0), heads, q.sym_size(2)},
                       q.options().dtype(accumulation_type(q)))};
}

Tensor plain_meta(const Tensor& q, const Tensor& k, const Tensor& v, const TalkingHeadsCall& call) {
  return std::get<0>(forward_meta(q, k, v, call));
}

Gradients backward_meta(const Tensor&, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor&, TalkingHeadsWanted wanted, const TalkingHeadsCall& call) {
  Gradients gradients = talking_heads_inputs(q, k, v, call);
  for (size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] =
        wanted[i] ? at::empty_symint(gradients[i].sym_sizes(), q.options()) : or_empty({}, q);
  }
  return gradients;
}

using Plain = Operator<TalkingHeadsOp, TalkingHeadsPlain>;
using ForwardHalf = Operator<TalkingHeadsOp, TalkingHeadsForwardHalf>;
using BackwardHalf = Operator<TalkingHeadsOp, TalkingHeadsBackwardHalf>;

void implement(torch::Library& m) {
  m.impl(kOp, &Plain::kernel<plain>);
  m.impl("talking_heads_attention_forward", &ForwardHalf::kernel<forward>);
  m.impl("talking_heads_attention_backward", &BackwardHalf::kernel<backward>);
}

// A projection [in, out] or [g, in / g, out / g] and what is added to it; returns its heads out.
c10::SymInt check_mix(Contract& args, const char* name, const OptionalTensor& projection,
                      const char* in_letter, const c10::SymInt& in, const char* by_query,
                      const OptionalTensor& x2, const char* by_key, const OptionalTensor& m2) {
  if (!projection) {
    args.require(!x2 && !m2, cat(name, " with ", x2 ? by_query : by_key), "none",
                 cat("A dynamic projection is added to ", name, "; pass zeros for none."));
    return in;
  }
  const std::string where(name), g = where + ".g", i = where + ".i", o = where + ".o";
  const char *letter_g = g.c_str(), *letter_i = i.c_str(), *letter_o = o.c_str();
  const bool grouped = projection->dim() == 3;
  args.require(
      grouped || projection->dim() == 2,
      cat(name, " of shape [", in_letter, ", heads] or [g, ", in_letter, " / g, heads / g]"),
      cat("shape ", projection->sym_sizes()));
  if (grouped) {
    args.same(name, *projection, {letter_g, letter_i, letter_o});
  } else {
    args.same(name, *projection, {letter_i, letter_o});
  }
  const auto sizes = mix_sizes(*projection);
  args.require(sizes[0] * sizes[1] == in, cat(name, " for ", in, " heads, ", in_letter, " = ", in),
               cat("shape ", projection->sym_sizes()));
  const auto dynamic = [&](const char* its_name, const OptionalTensor& added, const char* time) {
    if (grouped) {
      args.same(its_name, added, {"B", time, letter_g, letter_i, letter_o});
    } else {
      args.same(its_name, added, {"B", time, letter_i, letter_o});
    }
  };
  dynamic(by_query, x2, "Tq");
  dynamic(by_key, m2, "Tk");
  return sizes[0] * sizes[2];
}

void check_biases(Contract& args, const TalkingHeadsCall& call, const c10::SymInt& heads) {
  const c10::SymInt queries = args.sym("Tq"), keys = args.sym("Tk");
  if (call.bias) {
    const auto sizes = call.bias->sym_sizes();
    const std::vector<c10::SymInt> whole{args.sym("B"), heads, queries, keys};
    bool broadcasts = sizes.size() <= 4;
    for (size_t i = 0; broadcasts && i < sizes.size(); ++i) {
      const c10::SymInt& size = sizes[sizes.size() - 1 - i];
      broadcasts = size == 1 || size == whole[3 - i];
    }
    args.require(broadcasts,
                 cat("bias to broadcast to [B, H, Tq, Tk] = ", c10::SymIntArrayRef(whole)),
                 cat("shape ", sizes));
    args.require(!call.cu_seqlens_q, "no bias with cu_seqlens", "a bias",
                 "relative_bias works with packed sequences.");
  }
  if (call.relative_bias) {
    args.same("relative_bias", *call.relative_bias, {"heads", "distances"});
    const c10::SymInt distances = queries + keys == 0 ? c10::SymInt(0) : queries + keys - 1;
    args.require((args.sym("heads") == 1 || args.sym("heads") == heads) &&
                     args.sym("distances") == distances,
                 cat("relative_bias of shape [H or 1, Tq + Tk - 1], H = ", heads,
                     ", Tq + Tk - 1 = ", distances),
                 cat("shape ", call.relative_bias->sym_sizes()));
  }
}

}  // namespace

void check_talking_heads(const Tensor& q, const Tensor& k, const Tensor& v,
                         const TalkingHeadsCall& call) {
  Contract args(kOp);
  args.floating("q", q, {"B", "K", "Tq", "D"})
      .same("k", k, {"B", "K", "Tk", "D"})
      .same("v", v, {"B", "V", "Tk", "E"})
      .mask("key_padding_mask", call.key_padding_mask, {"B", "Tk"})
      .boundaries("cu_seqlens_q", call.cu_seqlens_q)
      .boundaries("cu_seqlens_k", call.cu_seqlens_k)
      .probability("dropout_p", call.dropout_p)
      .seed(call.seed, call.dropout_p > 0.0);
  args.require(call.dropout_site == "after_mix" || call.dropout_site == "before_mix" ||
                   call.dropout_site == "per_key",
               "dropout_site \"after_mix\", \"before_mix\" or \"per_key\"",
               cat('"', call.dropout_site, '"'));
  args.require(args.sym("K") >= 1 && args.sym("V") >= 1, "at least one head",
               cat("K = ", args.sym("K"), ", V = ", args.sym("V")));
  const c10::SymInt heads = check_mix(args, "logits_proj", call.logits_proj, "K", args.sym("K"),
                                      "x2l", call.x2l, "m2l", call.m2l);
  args.require(heads >= 1, "at least one head of the softmax", cat("H = ", heads));
  const c10::SymInt value_heads = check_mix(args, "weights_proj", call.weights_proj, "H", heads,
                                            "x2w", call.x2w, "m2w", call.m2w);
  args.require(
      value_heads == args.sym("V"), cat("v with the heads that leave the mixes, V = ", value_heads),
      cat("V = ", args.sym("V")), call.weights_proj ? "" : "Pass weights_proj [H, V] to mix them.");
  const bool packed = call.cu_seqlens_q.has_value();
  args.require(packed == call.cu_seqlens_k.has_value(), "both of cu_seqlens_q and cu_seqlens_k",
               "one of them");
  args.require(!packed || args.sym("B") == 1, "B = 1 with cu_seqlens", cat("B = ", args.sym("B")),
               "Concatenate the sequences along time.");
  check_biases(args, call, heads);
}

Tensor talking_heads_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                               const TalkingHeadsOptions& options) {
  TalkingHeadsCall call = options;
  if (call.dropout_p > 0.0 && !call.seed) call.seed = new_seed();
  static const Plain op(kOp);
  return op(q, k, v, call);
}

std::vector<Tensor> talking_heads_inputs(const Tensor& q, const Tensor& k, const Tensor& v,
                                         const TalkingHeadsCall& call) {
  std::vector<Tensor> inputs{q, k, v};
  for (const OptionalTensor& other : {call.logits_proj, call.weights_proj, call.x2l, call.m2l,
                                      call.x2w, call.m2w, call.bias, call.relative_bias}) {
    inputs.push_back(value_or_undefined(other));
  }
  return inputs;
}

TalkingHeadsCall with_inputs(TalkingHeadsCall call, const std::vector<Tensor>& inputs) {
  call.logits_proj = as_optional(inputs[3]);
  call.weights_proj = as_optional(inputs[4]);
  call.x2l = as_optional(inputs[5]);
  call.m2l = as_optional(inputs[6]);
  call.x2w = as_optional(inputs[7]);
  call.m2w = as_optional(inputs[8]);
  call.bias = as_optional(inputs[9]);
  call.relative_bias = as_optional(inputs[10]);
  return call;
}

TalkingHeadsSizes::TalkingHeadsSizes(const Tensor& k, const Tensor& v, const TalkingHeadsCall& call)
    : key_heads(k.size(1)),
      heads(heads_after(call.logits_proj, k.size(1)).expect_int()),
      value_heads(v.size(1)),
      logits_groups(call.logits_proj ? mix_sizes(*call.logits_proj)[0].expect_int() : 1),
      weights_groups(call.weights_proj ? mix_sizes(*call.weights_proj)[0].expect_int() : 1) {}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  const std::string options =
      "Tensor? logits_proj=None, Tensor? weights_proj=None, *, Tensor? x2l=None, Tensor? m2l=None, "
      "Tensor? x2w=None, Tensor? m2w=None, Tensor? bias=None, Tensor? relative_bias=None, Tensor? "
      "key_padding_mask=None, bool causal=False, float? scale=None, float dropout_p=0.0, str "
      "dropout_site=\"after_mix\", Tensor? seed=None, Tensor? cu_seqlens_q=None, Tensor? "
      "cu_seqlens_k=None";
  const auto define = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  define("talking_heads_attention(Tensor q, Tensor k, Tensor v, " + options + ") -> Tensor");
  define("talking_heads_attention_forward(Tensor q, Tensor k, Tensor v, " + options +
         ") -> (Tensor, Tensor)");
  define(
      "talking_heads_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor "
      "log2_sums, bool[11] wanted, " +
      options + ") -> Tensor[]");
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  implement(m);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl(kOp, &Plain::kernel<plain_meta>);
  m.impl("talking_heads_attention_forward", &ForwardHalf::kernel<forward_meta>);
  m.impl("talking_heads_attention_backward", &BackwardHalf::kernel<backward_meta>);
}

}  // namespace headloom
