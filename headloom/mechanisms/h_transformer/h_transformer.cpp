// Schemas of the operator and its two halves, argument checks, registration.
#include "headloom/mechanisms/h_transformer/h_transformer.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "headloom/base/check.h"
#include "headloom/mechanisms/h_transformer/h_transformer_dispatch.h"
#include "headloom/mechanisms/h_transformer/h_transformer_reference.h"
#include "headloom/tensor/contract.h"
#include "headloom/tensor/dispatch.h"
#include "headloom/tensor/dropout.h"
#include "headloom/tensor/gradients.h"

namespace headloom {
namespace {

using at::Tensor;

constexpr const char* kOp = "h_attention";
constexpr const char* kForwardOp = "h_attention_forward";
constexpr const char* kBackwardOp = "h_attention_backward";

Tensor plain(const Tensor& q, const Tensor& k, const Tensor& v, const HAttentionCall& call) {
  return std::get<0>(call_h_attention_forward(q, k, v, call));
}

HAttentionHalves forward(const Tensor& q, const Tensor& k, const Tensor& v,
                         const HAttentionCall& call) {
  check_h_attention(q, k, v, call);
  return h_attention_forward(q, k, v, call);
}

HAttentionHalves forward_by_level(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const HAttentionCall& call) {
  check_h_attention(q, k, v, call);
  return h_attention_by_level(q, k, v, call);
}

HAttentionHalves forward_meta(const Tensor& q, const Tensor& k, const Tensor& v,
                              const HAttentionCall& call) {
  check_h_attention(q, k, v, call);
  const auto rows = [&] { return std::vector{q.sym_size(0), q.sym_size(1), q.sym_size(2)}; };
  std::vector<c10::SymInt> sizes = rows();
  sizes.push_back(v.sym_size(3));
  return {at::empty_symint(sizes, q.options()),
          at::empty_symint(rows(), q.options().dtype(accumulation_type(q)))};
}

HAttentionGradients backward_by_level(const Tensor& grad_out, const Tensor& q, const Tensor& k,
                                      const Tensor& v, const Tensor&, const Tensor&,
                                      HAttentionWanted wanted, const HAttentionCall& call) {
  const auto attend = [&](const std::vector<Tensor>& x) {
    HAttentionCall with_bias = call;
    with_bias.bias = as_optional(x[3]);
    return std::get<0>(h_attention_by_level(x[0], x[1], x[2], with_bias));
  };
  const auto found = gradients_of(attend, {q, k, v, value_or_undefined(call.bias)},
                                  {wanted[0], wanted[1], wanted[2], wanted[3]}, grad_out);
  const auto dense = [&](size_t i) {
    return found[i].defined() ? found[i].contiguous() : or_empty({}, q);
  };
  return {dense(0), dense(1), dense(2), dense(3)};
}

HAttentionGradients backward_meta(const Tensor&, const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor&, const Tensor&, HAttentionWanted wanted,
                                  const HAttentionCall& call) {
  const auto like = [&](const Tensor& x, bool needed) {
    return needed ? at::empty_symint(x.sym_sizes(), x.options()) : or_empty({}, q);
  };
  return {like(q, wanted[0]), like(k, wanted[1]), like(v, wanted[2]),
          wanted[3] ? like(*call.bias, true) : or_empty({}, q)};
}

constexpr auto kPlain = &Operator<HAttentionOp, HAttentionPlain>::kernel<plain>;

Tensor weights(const Tensor& q, const Tensor& k, const HAttentionCall& call) {
  check_h_attention(q, k, q, call);
  HEADLOOM_CHECK(!call.cu_seqlens, "h_attention_weights", "one sequence a row", "cu_seqlens",
                 "Call it for each sequence.");
  return h_attention_dense(q, k, call);
}
using Weights = Tensor(const Tensor& q, const Tensor& k);

}  // namespace

bool is_fine(std::string_view query_mode) {
  if (query_mode == "fine") return true;
  HEADLOOM_CHECK(query_mode == "coarse", kOp, "query_mode \"coarse\" or \"fine\"",
                 cat('"', query_mode, '"'));
  return false;
}

void check_h_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                       const HAttentionCall& call) {
  Contract args(kOp);
  args.floating("q", q, {"B", "H", "T", "D"})
      .same("k", k, {"B", "H", "T", "D"})
      .same("v", v, {"B", "H", "T", "E"})
      .require(call.block_size >= 2 && call.block_size <= kMaxBlockSize && call.block_size % 2 == 0,
               cat("an even block_size of 2 to ", kMaxBlockSize), cat(call.block_size))
      .mask("key_padding_mask", call.key_padding_mask, {"B", "T"})
      .mask("query_padding_mask", call.query_padding_mask, {"B", "T"})
      .boundaries("cu_seqlens", call.cu_seqlens)
      .probability("dropout_p", call.dropout_p)
      .seed(call.seed, call.dropout_p > 0.0);
  if (call.bias) {
    args.same("bias", call.bias, {"H", "4 * block_size - 1"})
        .require(args.sym("4 * block_size - 1") == 4 * call.block_size - 1,
                 cat("bias of shape [H, ", 4 * call.block_size - 1, "]"),
                 cat("shape ", call.bias->sym_sizes()));
  }
  args.require(!(call.center_keys && call.causal), "a bidirectional call with center_keys",
               "a causal one",
               "The mean of all keys would tell a token about later ones; leave out the bias of "
               "the key projection instead.");
  if (call.cu_seqlens) {
    args.require(args.sym("B") == 1, "B = 1 with cu_seqlens", cat("B = ", args.sym("B")),
                 "Concatenate the sequences along time.");
  }
}

double h_attention_scale(const Tensor& q, const HAttentionCall& call) {
  return call.scale.value_or(1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(1, q.size(3)))));
}

HAttentionCall h_attention_call(const HAttentionOptions& options) {
  HAttentionCall call{options.block_size,
                      options.causal,
                      options.bias,
                      options.key_padding_mask,
                      options.query_padding_mask,
                      options.cu_seqlens,
                      options.scale,
                      options.dropout_p,
                      options.seed,
                      is_fine(options.query_mode),
                      options.center_keys};
  if (call.dropout_p > 0.0 && !call.seed) call.seed = new_seed();
  return call;
}

std::vector<int64_t> h_attention_bounds(const Tensor& q, const HAttentionCall& call) {
  if (!call.cu_seqlens) return {0, q.size(2)};
  return read_boundaries(kOp, "cu_seqlens", *call.cu_seqlens, q.size(2));
}

HAttentionCall h_attention_part(const HAttentionCall& call, const std::vector<int64_t>& bounds,
                                size_t sequence) {
  if (!call.cu_seqlens) return call;
  HAttentionCall one = call;
  one.cu_seqlens.reset();
  const auto part = [&](std::optional<Tensor>& mask) {
    if (mask) mask = mask->narrow(1, bounds[sequence], bounds[sequence + 1] - bounds[sequence]);
  };
  part(one.key_padding_mask);
  part(one.query_padding_mask);
  // Sequences must not share a dropout mask.
  if (call.seed) one.seed = *call.seed + static_cast<int64_t>(sequence);
  return one;
}

Tensor h_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                   const HAttentionOptions& options) {
  static const Operator<HAttentionOp, HAttentionPlain> op(kOp);
  return op(q, k, v, h_attention_call(options));
}

Tensor h_attention_weights(const Tensor& q, const Tensor& k, const HAttentionOptions& options) {
  return weights(q, k, h_attention_call(options));
}

HAttentionHalves call_h_attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                          const HAttentionCall& call) {
  static const Operator<HAttentionOp, HAttentionForward> op(kForwardOp);
  return op(q, k, v, call);
}

TORCH_LIBRARY_FRAGMENT(headloom, m) {
  const std::string options =
      "*, int block_size=16, bool causal=False, Tensor? bias=None, Tensor? key_padding_mask=None, "
      "Tensor? query_padding_mask=None, Tensor? cu_seqlens=None, float? scale=None, float "
      "dropout_p=0.0, Tensor? seed=None, str query_mode=\"coarse\", bool center_keys=False";
  const auto define = [&m](const std::string& schema) {
    m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  define("h_attention(Tensor q, Tensor k, Tensor v, " + options + ") -> Tensor");
  define("h_attention_forward(Tensor q, Tensor k, Tensor v, " + options + ") -> (Tensor, Tensor)");
  define(
      "h_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor "
      "log2_sum, bool[4] wanted, " +
      options + ") -> (Tensor, Tensor, Tensor, Tensor)");
  // Torch operations only, so that autograd and every device come with them.
  m.def(("h_attention_weights(Tensor q, Tensor k, " + options + ") -> Tensor").c_str(),
        &Operator<HAttentionOp, Weights>::kernel<weights>);
}

TORCH_LIBRARY_IMPL(headloom, CPU, m) {
  m.impl(kOp, kPlain);
  m.impl(kForwardOp, &Operator<HAttentionOp, HAttentionForward>::kernel<forward>);
  m.impl(kBackwardOp, &Operator<HAttentionOp, HAttentionBackward>::kernel<h_attention_backward>);
}

TORCH_LIBRARY_IMPL(headloom, CUDA, m) {
  m.impl(kOp, kPlain);
  m.impl(kForwardOp, &Operator<HAttentionOp, HAttentionForward>::kernel<forward_by_level>);
  m.impl(kBackwardOp, &Operator<HAttentionOp, HAttentionBackward>::kernel<backward_by_level>);
}

TORCH_LIBRARY_IMPL(headloom, Meta, m) {
  m.impl(kOp, kPlain);
  m.impl(kForwardOp, &Operator<HAttentionOp, HAttentionForward>::kernel<forward_meta>);
  m.impl(kBackwardOp, &Operator<HAttentionOp, HAttentionBackward>::kernel<backward_meta>);
}

}  // namespace headloom
